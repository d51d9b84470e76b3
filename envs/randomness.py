"""Randomness that ``reset(seed=...)`` does not reach: noticed, named, and made to follow the seed.

Gymnasium asks environments to draw from ``self.np_random``. Many draw from the global streams of
NumPy, Python or PyTorch, which other code moves too; such episodes cannot be repeated.
"""

import multiprocessing
import pickle
import random
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import printable
from mbrl_flat.runtime.seeding import restored_rng

_TRIAL_STEPS = 10
_SOURCES = ("numpy.random", "random", "torch")

_examined: dict[Hashable, bool] = {}


class OwnGlobalStreams(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Gives an environment's code global random streams of its own, seeded at every reset.

    Args:
        env: The environment to wrap; it is closed with this one.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._state = _seeded(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Seed the streams and start an episode."""
        if seed is not None:
            self._state = _seeded(seed)
        with self._streams():
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Step with its own streams."""
        with self._streams():
            return self.env.step(action)

    @contextmanager
    def _streams(self) -> Iterator[None]:
        outside = _states()
        _set_states(self._state)
        try:
            yield
        finally:
            self._state = _states()
            _set_states(outside)


def _states() -> tuple[Any, Any, torch.Tensor]:
    return np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002


def _set_states(states: tuple[Any, Any, torch.Tensor]) -> None:
    np.random.set_state(states[0])  # noqa: NPY002
    random.setstate(states[1])
    torch.set_rng_state(states[2])


def _seeded(seed: int) -> tuple[Any, Any, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    numpy = np.random.RandomState(seed % 2**32).get_state()
    return numpy, random.Random(seed).getstate(), generator.get_state()


def with_own_streams(build: Callable[[], Resumable], *, key: Hashable) -> Resumable:
    """Build an environment whose global random streams, if it draws from any, follow its seed.

    It is tried once in a process, and a message on stderr says what its seeds do not reach.

    Args:
        build: Makes it, with integer seeds at every reset.
        key: What is tried once.

    Returns:
        The environment.
    """
    if key not in _examined:
        with closing(build()) as env, restored_rng():
            _examined[key] = _examine(env, env.name)
    env = build()
    if _examined[key]:
        env.env = OwnGlobalStreams(env.env)
    return env


def _examine(env: Resumable, name: str) -> bool:
    _set_states(_seeded(1))
    before = _states()
    first = _play(env)
    after = _states()
    moved = [
        source
        for source, one, other in zip(_SOURCES, before, after, strict=True)
        if _as_bytes(one) != _as_bytes(other)
    ]
    if moved:
        _say(
            f"Environment {name} draws from the global random state of {', '.join(moved)}, which "
            f"reset(seed=...) does not seed. It gets streams of its own, seeded at every reset; "
            f"better: self.np_random."
        )
        env.env = OwnGlobalStreams(env.env)
        first = _play(env)
    if _sampled(env):
        _say(
            f"Environment {name} calls sample() of its spaces, which reset(seed=...) does not "
            f"seed. They are seeded at every reset; better: self.np_random."
        )
    _set_states(_seeded(2))
    second = _play(env)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=False)):
        _say(
            f"Environment {name} does not repeat an episode after the same reset(seed=...) and the "
            f"same actions; a run on it cannot be resumed exactly, and is refused then."
        )
    return bool(moved)


def _play(env: Resumable) -> list[np.ndarray]:
    """Observations and rewards of a short episode, always the same one."""
    rng, space = np.random.default_rng(0), env.action_space
    obs, _ = env.reset(seed=0)
    found = [np.array(value, np.float64) for value in obs.values()]
    for _ in range(_TRIAL_STEPS):
        if isinstance(space, gym.spaces.Discrete):
            action: Any = int(rng.integers(space.n))
        else:
            action = rng.uniform(-1.0, 1.0, space.shape or ()).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        found += [np.array(value, np.float64) for value in (*obs.values(), reward)]
        if terminated or truncated:
            break
    return found


def _sampled(env: Resumable) -> bool:
    """Whether the last episode, of seed 0, drew from the environment's own spaces."""
    for space in (env.unwrapped.action_space, env.unwrapped.observation_space):
        if isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
            now = space.np_random.bit_generator.state
            space.seed(0)
            if space.np_random.bit_generator.state != now:
                return True
    return False


def _as_bytes(state: Any) -> bytes:
    # Pickles of equal tensors differ.
    plain = state.numpy().tobytes() if isinstance(state, torch.Tensor) else state
    return pickle.dumps(plain)


def _say(message: str) -> None:
    if multiprocessing.parent_process() is None:
        sys.stderr.write(f"{printable(message)}\n")
