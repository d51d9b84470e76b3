"""Any registered Gymnasium environment.

Observations may hold vectors, small arrays, discrete values and images, alone or in a Dict or
Tuple; see ``spaces.py``. Actions may be a bounded Box or Discrete. Every reset passes an integer
seed; an environment that follows it can be resumed exactly.
"""

import copy
import importlib
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

import gymnasium as gym

from mbrl_flat.envs.randomness import OwnGlobalStreams, needs_own_streams
from mbrl_flat.envs.spaces import ObservationEntries, UnitActions
from mbrl_flat.envs.wrappers import ActionRepeat, Resumable
from mbrl_flat.errors import UnknownNameError, UserError, shown_error

_NO_LIMIT = 1000
"""Frames after which an episode is cut off where an environment states no limit."""


def make(
    task: str,
    *,
    seed: int,
    render: bool = False,
    action_repeat: int = 1,
    size: int = 64,
    kwargs: Mapping[str, Any] | None = None,
) -> Resumable:
    """Build an environment by its Gymnasium id.

    Args:
        task: Id such as ``Pendulum-v1``; in ``module:Id`` the module is imported first, which
            registers its environments.
        seed: Determines every episode.
        render: Allow ``render()``.
        action_repeat: Frames per step; rewards are summed.
        size: Height and width of images in the observation.
        kwargs: Further arguments of ``gymnasium.make``.

    Returns:
        The environment: observations ``{"state": [n]}``, images beside or instead of it, actions
        in [-1, 1] or discrete.

    Raises:
        UserError: If the environment cannot be made or has other spaces.
        UnknownNameError: If the id is not registered.
    """

    def build() -> Resumable:
        return adapt(
            _made(task, kwargs or {}, render), name=repr(task), seed=seed,
            action_repeat=action_repeat, size=size,
        )  # fmt: skip

    own_streams = needs_own_streams(build, name=repr(task))
    env = build()
    if render:
        # Whether it can draw shows only when it draws, otherwise in the midst of an evaluation.
        with closing(build()) as drawn:
            drawn.name = repr(task)
            drawn.reset(seed=seed)
            drawn.render()
    if own_streams:
        env.env = OwnGlobalStreams(env.env)
    return env


def adapt(
    env: gym.Env[Any, Any], *, name: str, seed: int, action_repeat: int = 1, size: int = 64
) -> Resumable:
    """Wrap an environment for agents.

    Args:
        env: It.
        name: What error messages call it.
        seed: Determines every episode.
        action_repeat: Frames per step; rewards are summed.
        size: Height and width of images in the observation.

    Returns:
        The environment as ``make`` gives it.

    Raises:
        UserError: If it has spaces that agents cannot take.
    """
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is None:
        limit = _NO_LIMIT
        env = gym.wrappers.TimeLimit(env, limit)
    # Spaces are often shared by all instances of a class, and are seeded at every reset.
    with suppress(AttributeError):
        env.unwrapped.action_space = copy.deepcopy(env.unwrapped.action_space)
        env.unwrapped.observation_space = copy.deepcopy(env.unwrapped.observation_space)
    env = ActionRepeat(UnitActions(env, name=name), action_repeat)
    env = ObservationEntries(env, size=size, name=name)
    steps = -(-limit // action_repeat)
    found = Resumable(env, episode_length=steps, action_repeat=action_repeat, seed=seed)
    found.name = name
    return found


def _made(task: str, kwargs: Mapping[str, Any], render: bool) -> gym.Env[Any, Any]:
    module, _, name = task.rpartition(":")
    # Not all take a render_mode: it is named only where it is needed.
    drawing: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    try:
        if module:
            importlib.import_module(module)
        if name not in gym.registry:
            raise UnknownNameError("task", name, gym.registry, where="env=gym")
        return gym.make(name, disable_env_checker=True, **(drawing | dict(kwargs)))
    except UserError:
        raise
    except (gym.error.Error, ImportError) as error:
        raise UserError(
            f"Gymnasium cannot make {task!r}: {error}; install what it needs, or put the folder of "
            f"your own module on PYTHONPATH."
        ) from error
    except (Exception, SystemExit) as error:  # whatever the code of a user's environment raises
        raise UserError(
            f"{task!r} cannot be made: its code raises {shown_error(error)} (debug=true shows "
            f"where)."
        ) from error
