"""Any registered Gymnasium environment.

Observations may hold vectors, small arrays, discrete values and images, alone or in a Dict or
Tuple; see ``spaces.py``. Actions may be a bounded Box or Discrete. Every reset passes an integer
seed; an environment that follows it can be resumed exactly.
"""

import copy
import importlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from types import MappingProxyType
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.envs.randomness import with_own_streams
from mbrl_flat.envs.spaces import ObservationEntries, UnitActions, native_spaces
from mbrl_flat.envs.wrappers import ActionRepeat, Resumable
from mbrl_flat.errors import UnknownNameError, UserError, is_ours, shown_error

GIVEN = "-from-python"
"""Ends the task of a run whose environment was given from Python."""
_NO_LIMIT = 1000
"""Frames after which an episode is cut off where an environment states no limit."""


class CheckedReturns(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Names what an environment returns where it is not what Gymnasium's interface says.

    Args:
        env: The environment to wrap; it is closed with this one.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode."""
        found: Any = self.env.reset(seed=seed, options=options)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            raise TypeError("it must return two things, an observation and a dict")
        return found

    def step(self, action: Any) -> Any:
        """Make one frame."""
        found: Any = self.env.step(action)
        if not (isinstance(found, tuple) and len(found) == 5 and isinstance(found[4], Mapping)):
            raise TypeError(
                "it must return five things: observation, reward, terminated, truncated and a dict"
            )
        return found


def make(
    task: str,
    *,
    seed: int,
    render: bool = False,
    action_repeat: int = 1,
    size: int = 64,
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> Resumable:
    """Build an environment by its Gymnasium id.

    Args:
        task: Id such as ``Pendulum-v1``; in ``module:Id`` the module is imported first, which
            registers its environments.
        seed: Determines every episode.
        render: Whether ``render()`` will be called, as for videos.
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
            _made(task, kwargs, render), name=repr(task), seed=seed,
            action_repeat=action_repeat, size=size,
        )  # fmt: skip

    env = with_own_streams(build, key=repr(task))
    if render:
        # Whether it can draw shows only when it draws, otherwise in the midst of an evaluation.
        with closing(build()) as drawn:
            drawn.name = repr(task)
            drawn.reset(seed=seed)
            if drawn.render() is None:
                raise UserError(f"Environment {task!r} draws no images; leave out video=true.")
    return env


def make_given(
    factory: Callable[[], Any], *, seed: int, action_repeat: int = 1, size: int = 64
) -> Resumable:
    """Build an environment by calling a function of the user, instead of by its Gymnasium id.

    Args:
        factory: Takes no arguments and makes a Gymnasium environment.
        seed: Determines every episode.
        action_repeat: Frames per step; rewards are summed.
        size: Height and width of images in the observation.

    Returns:
        The environment as ``make`` gives it.

    Raises:
        UserError: If it is no Gymnasium environment or has spaces that agents cannot take.
    """
    name = ""

    def build() -> Resumable:
        nonlocal name
        env = factory()
        name = repr(type(getattr(env, "unwrapped", env)).__name__)
        if not isinstance(env, gym.Env):
            raise UserError(
                f"The environment is a {name[1:-1]}; give a gymnasium.Env, its class or a function "
                f"that makes one."
            )
        found: Any = env
        return adapt(found, name=name, seed=seed, action_repeat=action_repeat, size=size)

    return with_own_streams(build, key=factory)


def adapt(
    env: gym.Env[Any, Any], *, name: str, seed: int, action_repeat: int = 1, size: int = 64
) -> Resumable:
    """Wrap one environment object for agents: time limit, action repeat, units, entries.

    ``make`` and ``make_given`` call it for each environment that they build.

    Args:
        env: An environment that exists, bare or in wrappers of its own.
        name: What error messages call it.
        seed: Determines every episode.
        action_repeat: Frames per step; rewards are summed.
        size: Height and width of images in the observation.

    Returns:
        The environment as ``make`` gives it.

    Raises:
        UserError: If it has spaces that agents cannot take.
    """
    for space in ("observation_space", "action_space"):
        if getattr(env, space, None) is None:
            raise UserError(f"Environment {name} has no {space}; define it in the class.")
    limit = _time_limit(env)
    env = _checked(env)
    if limit is None:
        limit = _NO_LIMIT
        env = gym.wrappers.TimeLimit(env, limit)
    # Spaces are often shared by all instances of a class, and are seeded at every reset.
    with suppress(AttributeError):
        env.unwrapped.action_space = copy.deepcopy(env.unwrapped.action_space)
        env.unwrapped.observation_space = copy.deepcopy(env.unwrapped.observation_space)
    adapted = ActionRepeat(UnitActions(env, name=name), action_repeat)
    adapted = ObservationEntries(adapted, size=size, name=name)
    steps = -(-limit // action_repeat)
    found = Resumable(adapted, episode_length=steps, action_repeat=action_repeat, seed=seed)
    found.name, found.native = name, native_spaces(env)
    return found


def _time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Frames of an episode by the registry or the shortest ``TimeLimit``; None for no limit."""
    limits = [None if env.spec is None else env.spec.max_episode_steps]
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            limits.append(env.get_wrapper_attr("_max_episode_steps"))
        env = env.env
    return min((limit for limit in limits if limit is not None), default=None)


def _checked(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Check what the environment itself returns, below the wrappers that it comes in."""
    if not isinstance(env, gym.Wrapper):
        return CheckedReturns(env)
    innermost: Any = env
    while isinstance(innermost.env, gym.Wrapper):
        innermost = innermost.env
    if not isinstance(innermost, CheckedReturns):
        innermost.env = CheckedReturns(innermost.env)
    return env


def _made(task: str, kwargs: Mapping[str, Any], render: bool) -> gym.Env[Any, Any]:
    module, colon, name = task.rpartition(":")
    if colon and not all(map(str.isidentifier, module.split("."))):
        raise UserError(f"{task!r} names no module before its colon; write MODULE:ID, or ID alone.")
    if task.endswith(GIVEN) or task == "Custom-v0":  # the latter in older runs
        raise UserError(
            f"The environment of this run, {task.removesuffix(GIVEN)}, was given from "
            f"Python; give it again: load(folder, env=...). For the commands register it in a "
            f"module of yours: env.task=MODULE:ID."
        )
    # Not all take a render_mode: it is named only where it is needed.
    drawing: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    try:
        if module:
            importlib.import_module(module)
        if name not in gym.registry:
            raise UnknownNameError("task", name, gym.registry, where="env=gym")
        return gym.make(name, disable_env_checker=True, **(drawing | dict(kwargs)))
    except (gym.error.Error, ImportError) as error:
        raise UserError(
            f"Gymnasium cannot make {task!r}: {error}; install what it needs, or put the folder of "
            f"your own module on PYTHONPATH."
        ) from error
    except BaseException as error:
        if is_ours(error):
            raise
        raise UserError(
            f"{task!r} cannot be made: its code raises {shown_error(error)} (debug=true shows "
            f"where)."
        ) from error
