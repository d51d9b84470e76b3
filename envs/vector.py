"""Several environments side by side, and the state of all of them."""

import signal
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import EnvFactory
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

Vector = SyncVectorEnv | AsyncVectorEnv
"""Environments in this process, or in one process each."""


def make_vector(
    factory: EnvFactory, *, num_envs: int, seed: int, parallel: bool = False, render: bool = False
) -> Vector:
    """Build environments that are reset by the caller, never by themselves.

    Args:
        factory: Makes one of them.
        num_envs: How many.
        seed: Seed of all; the seed of the i-th does not depend on how many there are.
        parallel: Give each a process of its own.
        render: Allow ``render()``.

    Returns:
        The vector environment; ended ones start over by ``reset(options={"reset_mask": mask})``.

    Raises:
        UserError: If ``num_envs`` is less than one.
    """
    if num_envs < 1:
        raise UserError(f"num_envs must be at least 1, got {num_envs}.")
    seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(num_envs)]

    def build(slot: int) -> gym.Env[Any, Any]:
        if parallel:
            # Ctrl-C reaches every process of a terminal; the main one decides what it means.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        env = factory(seed=seeds[slot], render=render)
        if not isinstance(env, Resumable):
            raise UserError(
                f"The environment that {factory} makes is a {type(env).__name__}; "
                f"it must be wrapped in mbrl_flat.envs.wrappers.Resumable."
            )
        env.slot = slot
        return env

    thunks = [partial(build, slot) for slot in range(num_envs)]
    mode = AutoresetMode.DISABLED
    if parallel:
        return AsyncVectorEnv(thunks, context="spawn", autoreset_mode=mode)
    return SyncVectorEnv(thunks, autoreset_mode=mode)


def spec_of(env: Vector) -> EnvSpec:
    """Say the shapes of one of the environments."""
    observation, action = env.single_observation_space, env.single_action_space
    assert isinstance(observation, gym.spaces.Dict)
    obs = {name: tuple(space.shape or ()) for name, space in observation.spaces.items()}
    images = frozenset(n for n, space in observation.spaces.items() if space.dtype == np.uint8)
    space = (
        Discrete(num=int(action.n))
        if isinstance(action, gym.spaces.Discrete)
        else Continuous(dim=int(np.prod(action.shape or ())))
    )
    return EnvSpec(
        obs=obs,
        action=space,
        episode_length=int(env.get_attr("episode_length")[0]),
        action_repeat=int(env.get_attr("action_repeat")[0]),
        score_range=env.get_attr("score_range")[0],
        images=images,
        frame_stack=int(env.get_attr("frame_stack")[0]),
        tasks=env.get_attr("tasks")[0],
    )


def vector_state(env: Vector) -> list[dict[str, Any]]:
    """Everything that the future of the environments depends on."""
    return list(env.call("resume_state"))


def restore_vector(env: Vector, state: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Put back what ``vector_state`` gave.

    Args:
        env: Environments made as those were.
        state: Their state.

    Returns:
        The current observations ``[N, ...]``.
    """
    env.reset()
    obs: tuple[dict[str, np.ndarray], ...] = env.call("restore_slot", state)
    return {name: np.stack([one[name] for one in obs]) for name in obs[0]}
