"""Several tasks of one family as one: padded to the largest, with an index that says which it is.

An observation is the task's own with zeros after it, and the entry ``task``, the index. Of an
action a task takes the first entries, as many as it has.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3.2 and appendix: the set of 30
    tasks of DeepMind Control.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import UserError
from mbrl_flat.specs import TASK, TaskSpec

MT30 = (
    "walker-stand", "walker-walk", "walker-run", "cheetah-run", "reacher-easy", "reacher-hard",
    "acrobot-swingup", "pendulum-swingup", "cartpole-balance", "cartpole-balance_sparse",
    "cartpole-swingup", "cartpole-swingup_sparse", "ball_in_cup-catch", "finger-spin",
    "finger-turn_easy", "finger-turn_hard", "fish-swim", "hopper-stand", "hopper-hop",
    "walker-walk_backwards", "walker-run_backwards", "cheetah-run_backwards", "cheetah-run_front",
    "cheetah-run_back", "cheetah-jump", "hopper-hop_backwards", "reacher-three_easy",
    "reacher-three_hard", "ball_in_cup-spin", "pendulum-spin",
)  # fmt: skip
"""The published set of DeepMind Control, in the published order."""


def task_list(task: str) -> tuple[str, ...]:
    """Names of the tasks that ``env.task`` stands for.

    Args:
        task: ``mt30``, or names joined by ``+``.

    Returns:
        The names, in the order of their indices.

    Raises:
        UserError: If a name is empty, or comes twice.
    """
    names = MT30 if task == "mt30" else tuple(task.split("+"))
    if len(set(names)) < len(names) or not all(names):
        raise UserError(
            f"env.task={task} does not name different tasks; join their names by +, such as "
            f"walker-walk+cheetah-run, or say mt30."
        )
    return names


def make(
    task: str,
    *,
    seed: int,
    base: Callable[..., gym.Env[Any, Any]],
    render: bool = False,
    index: int = 0,
    score_range: tuple[float, float] | None = None,
) -> gym.Env[Any, Any]:
    """Build one of several tasks.

    Args:
        task: All of them: ``mt30``, or names joined by ``+``.
        seed: Determines every episode.
        base: ``base(name, seed=..., render=...)`` makes one task by its name.
        render: Whether ``render()`` will be called, as for videos.
        index: Which task is built.
        score_range: Returns that count as 0 and as 1 of the normalised score, in every task.

    Returns:
        The environment: observations ``{"state": [n], "task": [1]}``, actions in [-1, 1].

    Raises:
        UserError: If a task has images or discrete actions.
    """
    names = task_list(task)
    tasks = _task_specs(names, base, None if score_range is None else tuple(score_range))
    env = base(names[index], seed=seed, render=render)
    return Resumable(
        PaddedTask(env, tasks, index),
        episode_length=max(known.episode_length for known in tasks),
        action_repeat=env.get_wrapper_attr("action_repeat"),
        score_range=tasks[index].score_range,
        tasks=tasks,
        seed=seed if env.get_wrapper_attr("integer_seeds") else None,
    )


class PaddedTask(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Gives every task the observations and actions of the largest, and its index.

    Args:
        env: The task, with the observation ``state``.
        tasks: Shapes of all tasks, whose largest sizes this one is padded to.
        index: Which of them this is.
    """

    def __init__(self, env: gym.Env[Any, Any], tasks: tuple[TaskSpec, ...], index: int) -> None:
        RecordConstructorArgs.__init__(self, tasks=tasks, index=index)
        gym.Wrapper.__init__(self, env)
        self._actions = tasks[index].action_size
        self._index = np.array([index], np.float32)
        self._size = max(task.obs_size for task in tasks)
        width = max(task.action_size for task in tasks)
        last = np.float32(len(tasks) - 1)
        self.observation_space = gym.spaces.Dict(
            {
                "state": gym.spaces.Box(-np.inf, np.inf, (self._size,), np.float32),
                TASK: gym.spaces.Box(np.float32(0.0), last, (1,), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, (width,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._padded(obs), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Take the task's own actions."""
        obs, reward, terminated, truncated, info = self.env.step(action[: self._actions])
        return self._padded(obs), reward, terminated, truncated, info

    def _padded(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        state = np.zeros(self._size, np.float32)
        state[: len(obs["state"])] = obs["state"]
        return {"state": state, TASK: self._index.copy()}


@lru_cache(maxsize=8)
def _task_specs(
    names: tuple[str, ...],
    base: Callable[..., gym.Env[Any, Any]],
    score_range: tuple[float, float] | None,
) -> tuple[TaskSpec, ...]:
    """Build every task once to learn its sizes."""
    return tuple(_task_spec(name, base(name, seed=0), score_range) for name in names)


def _task_spec(
    name: str, env: gym.Env[Any, Any], score_range: tuple[float, float] | None
) -> TaskSpec:
    observation, action = env.observation_space, env.action_space
    assert isinstance(observation, gym.spaces.Dict)
    shapes = {key: space.shape for key, space in observation.spaces.items()}
    if not isinstance(action, gym.spaces.Box) or len(shapes.get("state") or ()) != 1:
        raise UserError(
            f"env=multitask takes tasks with vector observations and continuous actions, and "
            f"{name} is none; choose others by env.task=..."
        )
    length = env.get_wrapper_attr("episode_length")
    env.close()
    return TaskSpec(
        name=name,
        obs_size=int(np.prod(shapes["state"] or ())),
        action_size=int(np.prod(action.shape)),
        episode_length=length,
        score_range=score_range,
    )
