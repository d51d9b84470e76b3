"""Wrappers that every kind of environment may need."""

from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.errors import UserError
from mbrl_flat.specs import TaskSpec

Obs = dict[str, np.ndarray]


@runtime_checkable
class SavesState(Protocol):
    """An environment that can say and take back all that the rest of its episode depends on."""

    def save_state(self) -> dict[str, Any]:
        """Plain data and tensors; ``np_random`` is not among them."""
        ...

    def load_state(self, state: dict[str, Any]) -> Obs:
        """Put back what ``save_state`` gave, and return the current observation."""
        ...


class Resumable(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Remembers how the present episode came about, so that another process can go on with it.

    An episode is a function of the random state at its reset and of the actions since. Playing
    these again is exact for every simulator, where copying a simulator's state often is not; an
    environment for which it is (``SavesState``) is copied. All randomness of the environment must
    follow from ``np_random``.

    Args:
        env: The environment.
        episode_length: Longest episode in steps.
        action_repeat: Frames per step.
        score_range: Returns that count as 0 and as 1 of the normalised score.
        frame_stack: Newest images that an image in the observation joins.
        tasks: All tasks, where this is one of several that are padded to common sizes.

    Attributes:
        slot: Which of several environments side by side this one is.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        episode_length: int,
        action_repeat: int,
        score_range: tuple[float, float] | None = None,
        frame_stack: int = 1,
        tasks: tuple[TaskSpec, ...] = (),
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            episode_length=episode_length,
            action_repeat=action_repeat,
            score_range=score_range,
            frame_stack=frame_stack,
            tasks=tasks,
        )
        gym.Wrapper.__init__(self, env)
        self.episode_length = episode_length
        self.action_repeat = action_repeat
        self.score_range = score_range
        self.frame_stack = frame_stack
        self.tasks = tasks
        self.slot = 0
        self._copied = env.unwrapped if isinstance(env.unwrapped, SavesState) else None
        self._start: Any = None
        self._actions: list[np.ndarray] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start an episode and forget the one before."""
        if seed is not None:
            # As the environment would, but before it draws: this state is what is remembered.
            self.unwrapped.np_random = np.random.default_rng(seed)
        self._start = self.unwrapped.np_random.bit_generator.state
        self._actions = []
        return self.env.reset(options=options)

    def step(self, action: Any) -> tuple[Obs, Any, bool, bool, dict[str, Any]]:
        """Step and remember the action."""
        if self._copied is None:
            self._actions.append(np.array(action))
        return self.env.step(action)

    def resume_state(self) -> dict[str, Any]:
        """The random state at the last reset and the actions since; or the present ones, copied."""
        if self._copied is not None:
            now = self.unwrapped.np_random.bit_generator.state
            return {"start": now, "copy": self._copied.save_state()}
        actions = np.stack(self._actions) if self._actions else np.zeros(0)
        return {"start": self._start, "actions": torch.from_numpy(actions)}

    def restore(self, state: dict[str, Any]) -> Obs:
        """Come back to where ``resume_state`` was taken.

        Args:
            state: What it returned.

        Returns:
            The current observation.
        """
        self.unwrapped.np_random.bit_generator.state = state["start"]
        if self._copied is not None:
            return self._copied.load_state(state["copy"])
        obs, _ = self.reset()
        for action in state["actions"].numpy():
            obs = self.step(action)[0]
        return obs

    def restore_slot(self, states: list[dict[str, Any]]) -> Obs:
        """Come back to this environment's own of several states."""
        return self.restore(states[self.slot])


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Repeats each action and sums the rewards, until the episode ends.

    Args:
        env: The environment.
        num: Frames per step.
    """

    def __init__(self, env: gym.Env[Any, Any], num: int) -> None:
        RecordConstructorArgs.__init__(self, num=num)
        gym.Wrapper.__init__(self, env)
        if num < 1:
            raise UserError(f"action_repeat must be at least 1, got {num}.")
        self.num = num

    def step(self, action: Any) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Step up to ``num`` times."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        total = float(reward)
        for _ in range(self.num - 1):
            if terminated or truncated:
                break
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
        return obs, total, terminated, truncated, info


class DictState(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """A vector observation under the name ``state``, as float32."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        assert isinstance(space, gym.spaces.Box)
        box = gym.spaces.Box(-np.inf, np.inf, space.shape, np.float32)
        self.observation_space = gym.spaces.Dict({"state": box})

    def observation(self, observation: np.ndarray) -> Obs:
        """Name it."""
        return {"state": np.asarray(observation, np.float32)}
