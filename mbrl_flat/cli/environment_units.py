"""Environments as callers from Python give them: names, factories, their own units."""

import copy
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import gymnasium as gym
import numpy as np

from mbrl_flat.cli.plugins import plugin_names
from mbrl_flat.envs.gym import GIVEN, make_given
from mbrl_flat.envs.spaces import ObservationEntries, UnitActions
from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import UserError, shown_error
from mbrl_flat.interfaces import EnvFactory
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.sweeps import quoted

EnvMaker = Callable[[], gym.Env[Any, Any]]


def env_words(env: str | EnvMaker | gym.Env[Any, Any]) -> list[str]:
    """Words of the command line for an environment's short name, or for one that was given."""
    if not isinstance(env, str):
        given: Any = type(env.unwrapped) if isinstance(env, gym.Env) else env
        name = getattr(given, "__name__", "")
        return ["env=gym", f"env.task={name if name.isidentifier() else 'Environment'}{GIVEN}"]
    suite, separator, task = env.partition(":")
    plugins = plugin_names("env")
    if env in plugins:
        return [f"env={env}"]
    ours = [file.name for file in (files("mbrl_flat.configs") / "env").iterdir()]
    if separator and (suite in plugins or f"{suite}.yaml" in ours):
        return [f"env={suite}", f"env.task={quoted(task)}"]
    known = separator or env in gym.registry or "-v" in env
    return [f"env={'gym' if known else 'dmc'}", f"env.task={quoted(env)}"]


def env_maker(env: EnvMaker | gym.Env[Any, Any]) -> EnvMaker:
    """A function that makes the environment; an object is copied each time."""
    if not isinstance(env, gym.Env):
        if not callable(env):
            raise UserError(
                f"env must be a task, a gymnasium.Env, its class or a function that makes one, got "
                f"{env!r}."
            )
        return env

    def copied() -> gym.Env[Any, Any]:
        # Training and evaluation each have their own.
        try:
            return copy.deepcopy(env)
        except Exception as error:  # whatever the environment's parts raise
            raise UserError(
                f"{env} cannot be copied ({error}); give a function that makes it: "
                f"env=lambda: MyEnv()."
            ) from error

    return copied


def given_factory(make: EnvMaker, configured: Any) -> EnvFactory:
    """A factory of what was given from Python, with the settings of ``env`` that it can take.

    Args:
        make: Makes it.
        configured: The factory that the configuration describes, a ``functools.partial``.

    Returns:
        The factory.
    """
    settings = {
        name: configured.keywords[name]
        for name in ("action_repeat", "size")
        if name in configured.keywords
    }

    def given(*, seed: int, render: bool = False) -> Resumable:
        del render
        return make_given(make, seed=seed, **settings)

    given.__name__ = getattr(make, "__name__", "given")
    return given


class EnvironmentUnits:
    """Maps what an environment gives and takes to what an agent takes and gives.

    Args:
        env: The environment as the run wraps it.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        wrappers: list[Any] = [env]
        while isinstance(wrappers[-1], gym.Wrapper):
            wrappers.append(wrappers[-1].env)
        self._sorting: Any = next((w for w in wrappers if isinstance(w, ObservationEntries)), None)
        self._unit: Any = next((w for w in wrappers if isinstance(w, UnitActions)), None)

    def entries(self, obs: Any, spec: EnvSpec) -> tuple[dict[str, np.ndarray], bool]:
        """Sort observations into the entries of an agent.

        Args:
            obs: One observation, or a batch of them with a leading axis in each entry.
            spec: The agent's shapes.

        Returns:
            Entries ``[N, ...]`` by name, and whether the leading axis was given.

        Raises:
            UserError: If entries are missing.
        """
        given = None if self._sorting is None else self._sorting.env.observation_space
        try:
            entries, batched = self._entries(obs, spec, given)
        except UserError:
            raise
        except (TypeError, ValueError, LookupError) as error:
            raise UserError(f"{shown_error(error)}; give an observation of {given}.") from error
        for name, shape in spec.obs.items():
            if entries[name].shape[1:] != shape:
                raise UserError(
                    f"The observation {name!r} has shape {entries[name].shape[1:]}, and the agent "
                    f"takes {shape}; give one of the environment's, or a batch [N, ...] of them."
                )
        return entries, batched

    def _entries(self, obs: Any, spec: EnvSpec, given: Any) -> tuple[dict[str, np.ndarray], bool]:
        if not isinstance(obs, Mapping) and not isinstance(given, gym.spaces.Box):
            if len(spec.obs) > 1:
                raise UserError(f"The observation has the entries {', '.join(spec.obs)}; give all.")
            obs = {next(iter(spec.obs)): obs}
        shapes = spec.obs if self._sorting is None else _shapes(given)
        name, shape = next(iter(shapes.items()))
        first: Any = obs[name] if name else obs
        batched = np.ndim(first) > len(shape)
        rows = _rows(obs) if batched else [obs]
        entries = [row if self._sorting is None else self._sorting.observation(row) for row in rows]
        return {k: np.stack([np.asarray(row[k]) for row in entries]) for k in spec.obs}, batched

    def actions(self, actions: np.ndarray, spec: EnvSpec) -> np.ndarray:
        """Actions ``[N, A]`` of the agent in the environment's own units ``[N, ...]``."""
        if not isinstance(spec.action, Continuous) and actions.ndim > 1:
            actions = actions.argmax(-1)
        if self._unit is None:
            return actions
        return np.stack([np.asarray(self._unit.action(action)) for action in actions])


def _shapes(space: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a space's entries by name; that of a single one has the name ``""``."""
    if isinstance(space, gym.spaces.Dict):
        return {name: entry.shape or () for name, entry in space.spaces.items()}
    return {"": space.shape or ()}


def _rows(obs: Any) -> list[Any]:
    """The observations of a batch."""
    if not isinstance(obs, Mapping):
        return list(obs)
    count = len(next(iter(obs.values())))
    return [{key: value[row] for key, value in obs.items()} for row in range(count)]
