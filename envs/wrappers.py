"""Wrappers that every kind of environment may need."""

import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.envs.returned import as_flag, as_frame, as_number, check_finite, kept
from mbrl_flat.errors import EnvironmentFailure, UserError, is_ours, printable
from mbrl_flat.runtime.interrupts import time_limit
from mbrl_flat.settings import check_number
from mbrl_flat.specs import TaskSpec

Obs = dict[str, np.ndarray]

_CLOSE_SECONDS = 20.0
"""How long an environment may take to close."""


@contextmanager
def kept_streams() -> Iterator[None]:
    """Give stdout and stderr back where an environment's code has set them to None."""
    before = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = sys.stdout or before[0], sys.stderr or before[1]


@runtime_checkable
class SavesState(Protocol):
    """An environment that can save and restore everything the rest of its episode depends on."""

    def save_state(self) -> dict[str, Any]:
        """Plain data and tensors; ``np_random`` is not among them."""
        ...

    def load_state(self, state: dict[str, Any]) -> Obs:
        """Restore what ``save_state`` gave, and return the current observation."""
        ...


class Resumable(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The boundary to an environment's code: resumes its episodes, checks and names its failures.

    An episode is a function of how it was reset and of the actions since. Playing these again is
    exact for every simulator, where copying a simulator's state often is not; an environment for
    which it is (``SavesState``) is copied.

    With a ``seed`` every reset passes an integer seed, drawn from a stream that is saved with the
    run; that is what Gymnasium asks environments to follow. Without one, all randomness of the
    environment must follow from its ``np_random``, which is saved.

    Args:
        env: The environment to wrap; it is closed with this one.
        episode_length: Longest episode in steps.
        action_repeat: Frames per step.
        score_range: Returns that count as 0 and as 1 of the normalised score.
        frame_stack: Newest images that an image in the observation joins.
        tasks: All tasks, where this is one of several that are padded to common sizes.
        seed: Seed of the stream of seeds.

    Attributes:
        slot: Index of this environment among several side by side.
        name: What error messages call it.
        integer_seeds: Whether every reset passes an integer seed.
        native: The spaces before they were adapted, as ``native_spaces`` describes them.
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
        seed: int | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            episode_length=episode_length,
            action_repeat=action_repeat,
            score_range=score_range,
            frame_stack=frame_stack,
            tasks=tasks,
            seed=seed,
        )
        gym.Wrapper.__init__(self, env)
        self.episode_length = episode_length
        self.action_repeat = action_repeat
        self.score_range = score_range
        self.frame_stack = frame_stack
        self.tasks = tasks
        self.slot, self.name = 0, type(env.unwrapped).__name__
        self.integer_seeds = seed is not None
        self.native: dict[str, str] = {}
        self._copied = env.unwrapped if isinstance(env.unwrapped, SavesState) else None
        self._seeds = None if seed is None else np.random.default_rng(seed)
        self._start: dict[str, Any] = {}
        self._actions: list[np.ndarray] = []
        self._obs: Obs = {}
        self._frame_shape: tuple[int, ...] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start an episode and forget the one before."""
        with self._boundary("reset"):
            if self._seeds is not None:
                if seed is None:
                    seed = int(self._seeds.integers(2**31))
                else:
                    self._seeds = np.random.default_rng(seed)
                self._start = {"seed": seed}
                for space in (self.unwrapped.action_space, self.unwrapped.observation_space):
                    space.seed(seed)
            else:
                if seed is not None:
                    # As the environment would, but before it draws: this state is remembered.
                    self.unwrapped.np_random = np.random.default_rng(seed)
                self._start = {"start": self.unwrapped.np_random.bit_generator.state}
                seed = None
            self._actions = []
            obs, info = self.env.reset(seed=seed, options=options)
            return self._checked(obs), kept(info)

    def step(self, action: Any) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Step and remember the action."""
        if self._copied is None:
            self._actions.append(np.array(action))
        with self._boundary("step"):
            obs, reward, terminated, truncated, info = self.env.step(action)
            number = as_number(reward, "reward")
            check_finite(number, "reward")
            return (
                self._checked(obs),
                number,
                as_flag(terminated, "terminated"),
                as_flag(truncated, "truncated"),
                kept(info),
            )

    def close(self) -> None:
        """Close the environment; a failure is noted, since nothing depends on it any more."""
        try:
            with self._boundary("close"), time_limit(_CLOSE_SECONDS):
                super().close()
        except EnvironmentFailure as error:
            if self.slot == 0:
                sys.stderr.write(f"note: {printable(error)}\n")

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw an image ``[height, width, 3]``, uint8; None without a ``render_mode``."""
        with self._boundary("render"):
            frame = self.env.render()
            if frame is None and self.env.render_mode is None:
                return None
            frame = as_frame(frame, self._frame_shape)
        self._frame_shape = frame.shape
        return frame

    @contextmanager
    def _boundary(self, call: str) -> Iterator[None]:
        dtype, grads = torch.get_default_dtype(), torch.is_grad_enabled()
        try:
            with kept_streams():
                yield
        except BaseException as error:
            if is_ours(error):
                raise
            raise EnvironmentFailure.in_call(self.name, call, error) from error
        changed = torch.get_default_dtype() is not dtype or torch.is_grad_enabled() is not grads
        if changed and multiprocessing.parent_process() is None:
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grads)
            raise EnvironmentFailure(
                f"Environment {self.name} changed torch's default dtype or grad mode in {call}(), "
                f"on which the agent depends; set it back there, or set parallel_envs=true."
            )

    def _checked(self, obs: Any) -> Obs:
        space: Any = self.observation_space
        for name, part in space.spaces.items():
            if np.shape(obs[name]) != part.shape:
                raise ValueError(
                    f"the observation {name!r} has shape {np.shape(obs[name])}, but the "
                    f"observation space has {part.shape}"
                )
            check_finite(obs[name], f"observation {name!r}")
        self._obs = obs
        return obs

    def resume_state(self) -> dict[str, Any]:
        """How the present episode was reset and its actions since; or its present state, copied."""
        with self._boundary("save_state"):
            return self._resume_state()

    def _resume_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"obs": {k: torch.tensor(v) for k, v in self._obs.items()}}
        if self._seeds is not None:
            state["seeds"] = self._seeds.bit_generator.state
        if self._copied is not None:
            now = _plain(self.unwrapped.np_random.bit_generator.state)
            return state | {"start": now, "copy": self._copied.save_state()}
        actions = np.stack(self._actions) if self._actions else np.zeros(0)
        return state | _plain(self._start) | {"actions": torch.from_numpy(actions)}

    def restore(self, state: dict[str, Any]) -> Obs:
        """Return to where ``resume_state`` was taken.

        Args:
            state: What it returned.

        Returns:
            The current observation.

        Raises:
            UserError: If the replayed observation differs from the saved one.
        """
        with self._boundary("restore"):
            if self._copied is not None:
                self.unwrapped.np_random.bit_generator.state = _native(state["start"])
                obs = self._checked(self._copied.load_state(state["copy"]))
            else:
                obs = self._replayed(state)
        if self._seeds is not None and "seeds" in state:
            self._seeds.bit_generator.state = state["seeds"]
        saved = state.get("obs", {})
        if not all(_close(obs[name], value.numpy()) for name, value in saved.items()):
            raise UserError(
                f"Environment {self.name} did not return to where the checkpoint was made: after "
                f"the same seed and actions it gives another observation. Its randomness does not "
                f"follow from reset(seed=...), or its code or its packages have changed; start a "
                f"new run."
            )
        return obs

    def _replayed(self, state: Mapping[str, Any]) -> Obs:
        if "seed" in state:
            obs, _ = self.reset(seed=state["seed"])
        else:
            self.unwrapped.np_random.bit_generator.state = _native(state["start"])
            self._start, self._actions = {"start": _native(state["start"])}, []
            obs = self._checked(self.env.reset()[0])
        for action in state["actions"].numpy():
            obs = self.step(action)[0]
        return obs

    def restore_slot(self, states: list[dict[str, Any]]) -> Obs:
        """Return to this environment's own of several states."""
        return self.restore(states[self.slot])


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for the rounding of another machine."""
    return np.shape(one) == other.shape and bool(
        np.allclose(one, other, rtol=1e-4, atol=1e-4, equal_nan=True)
    )


def _plain(state: Any) -> Any:
    """State of a bit generator with tensors for arrays, which checkpoints can hold."""
    if isinstance(state, Mapping):
        return {name: _plain(value) for name, value in state.items()}
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state.astype(np.int64))
    return state.item() if isinstance(state, np.generic) else state


def _native(state: Any) -> Any:
    """What ``_plain`` was given."""
    if isinstance(state, Mapping):
        return {name: _native(value) for name, value in state.items()}
    return state.numpy().astype(np.uint64) if isinstance(state, torch.Tensor) else state


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Repeats each action and sums the rewards, until the episode ends.

    Args:
        env: The environment to wrap; it is closed with this one.
        num: Frames per step.
    """

    def __init__(self, env: gym.Env[Any, Any], num: int) -> None:
        RecordConstructorArgs.__init__(self, num=num)
        gym.Wrapper.__init__(self, env)
        check_number("action_repeat", num, "[1, inf)", whole=True)
        self.num = num

    def step(self, action: Any) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Step up to ``num`` times."""
        total = 0.0
        for _ in range(self.num):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += as_number(reward, "reward")
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info  # pyright: ignore[reportPossiblyUnboundVariable]
