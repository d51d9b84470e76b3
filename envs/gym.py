"""Any registered Gymnasium environment with a vector observation and Box or Discrete actions.

The environment's own randomness must follow from its ``np_random``, as Gymnasium asks; then its
runs can be resumed exactly.
"""

import importlib
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np

from mbrl_flat.envs.wrappers import ActionRepeat, DictState, Resumable
from mbrl_flat.errors import UnknownNameError, UserError

_NO_LIMIT = 1000
"""Frames after which an episode is cut off where an environment states no limit."""


def make(
    task: str, *, seed: int, render: bool = False, action_repeat: int = 1
) -> gym.Env[Any, Any]:
    """Build an environment by its Gymnasium id.

    Args:
        task: Id such as ``Pendulum-v1``; in ``module:Id`` the module is imported first, which
            registers its environments.
        seed: Determines every episode.
        render: Allow ``render()``.
        action_repeat: Frames per step; rewards are summed.

    Returns:
        The environment: observations ``{"state": [n]}``, actions in [-1, 1] or discrete.

    Raises:
        UserError: If the environment cannot be made or has other spaces.
        UnknownNameError: If the id is not registered.
    """
    module, _, name = task.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        if name not in gym.registry:
            raise UnknownNameError("task", name, gym.registry, where="env=gym")
        # Not all take a render_mode: it is named only where it is needed.
        drawing: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
        env: gym.Env[Any, Any] = gym.make(name, **drawing)
        if render:
            # What draws is looked for only when something is drawn, in the midst of an evaluation.
            with closing(gym.make(name, **drawing)) as drawn:
                drawn.reset(seed=seed)
                drawn.render()
    except UserError:
        raise
    except (gym.error.Error, ImportError) as error:
        raise UserError(
            f"Gymnasium cannot make {task!r}: {error}; install what it needs, or put the folder of "
            f"your own module on PYTHONPATH."
        ) from error
    except Exception as error:  # whatever the code of a user's environment raises
        raise UserError(
            f"{task!r} cannot be made: its code raises {type(error).__name__}: {error} "
            f"(debug=true shows where)."
        ) from error
    observation = env.observation_space
    if isinstance(observation, gym.spaces.Discrete):
        env = gym.wrappers.FlattenObservation(env)
    elif not isinstance(observation, gym.spaces.Box) or len(observation.shape) != 1:
        raise UserError(
            f"env=gym takes vector observations; {task!r} has {observation}. "
            f"Images are for env=atari."
        )
    limit = gym.registry[name].max_episode_steps
    if limit is None:
        limit = _NO_LIMIT
        env = gym.wrappers.TimeLimit(env, limit)
    env = ActionRepeat(_unit_actions(env, task), action_repeat)
    env.unwrapped.np_random = np.random.default_rng(seed)
    return Resumable(
        DictState(env), episode_length=-(-limit // action_repeat), action_repeat=action_repeat
    )


def _unit_actions(env: gym.Env[Any, Any], task: str) -> gym.Env[Any, Any]:
    """Rescale Box actions to [-1, 1]; leave Discrete ones."""
    space = env.action_space
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return env
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise UserError(f"The actions of {task!r} have no bounds, so [-1, 1] cannot be mapped.")
        return gym.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    raise UserError(f"env=gym takes vectors of actions or discrete ones; {task!r} has {space}.")
