"""Several environments side by side, and the state of all of them."""

import multiprocessing
import queue
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from mbrl_flat.envs.wrappers import Resumable, kept_streams
from mbrl_flat.errors import EnvironmentFailure, UserError, is_ours, shown_error
from mbrl_flat.interfaces import EnvFactory
from mbrl_flat.runtime.interrupts import STOP_SIGNALS
from mbrl_flat.settings import check_number
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

_PATIENCE_SECONDS = 30.0
"""How long a process may take to end or to say what went wrong."""


def _work(index: int, make: Callable[[], Any], *places: Any) -> None:
    """The loop of a process; what making its environment raises is sent, not printed."""
    pipe, _, _, errors = places[:4]
    try:
        env = make()
    except BaseException as error:
        with suppress(EOFError, OSError):  # of a leader that is gone
            pipe.recv()
            errors.put((index, UserError, str(error), ""))
            pipe.send((None, False))
        return
    with suppress(EOFError, OSError):
        # A private name: Gymnasium has no public one for the loop of its workers.
        _async_worker(index, lambda: env, *places)


class Workers(AsyncVectorEnv):
    """Environments in one process each, which the main process alone ends.

    Workers ignore the signals that ask a run to stop, so that it can save their state first. An
    error in a worker is raised here with its own message, and a worker that died is named.
    """

    def __init__(self, thunks: Sequence[Callable[[], gym.Env[Any, Any]]]) -> None:
        self.processes, self.parent_pipes = [], []
        try:
            with _blocked_signals(), self._boundary():
                super().__init__(
                    thunks, context="spawn", autoreset_mode=AutoresetMode.DISABLED, worker=_work
                )
        except BaseException as error:
            self.close_extras(terminate=True)
            if isinstance(error, OSError):
                raise UserError(
                    f"The {len(thunks)} processes of parallel_envs=true cannot be started "
                    f"({error.strerror}); free what they need, such as space in /dev/shm, take a "
                    f"smaller num_envs or set parallel_envs=false."
                ) from error
            raise

    def reset_wait(self, *args: Any, **settings: Any) -> Any:
        """Wait for all resets."""
        with self._boundary():
            return super().reset_wait(*args, **settings)

    def step_wait(self, *args: Any, **settings: Any) -> Any:
        """Wait for all steps."""
        with self._boundary():
            return super().step_wait(*args, **settings)

    def call(self, name: str, *args: Any, **settings: Any) -> Any:
        """Call a method of all."""
        with self._boundary():
            return super().call(name, *args, **settings)

    def step_async(self, actions: Any) -> None:
        """Send the actions."""
        with self._boundary():
            super().step_async(actions)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End all processes; those that are gone or do not answer in time are killed."""
        patience = _PATIENCE_SECONDS if timeout is None else timeout
        deadline = time.monotonic() + (0.0 if terminate else patience)
        for pipe in [] if terminate else filter(None, self.parent_pipes):
            with suppress(OSError):  # of a process that is gone
                pipe.send(("close", None))
        for process in self.processes:
            if process.pid is None:  # it could not be started
                continue
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in filter(None, self.parent_pipes):
            pipe.close()
        self._state = AsyncState.DEFAULT  # nothing is waited for any more

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        if all(successes):
            return
        self._state = AsyncState.DEFAULT
        try:
            _, kind, error, _ = self.error_queue.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty as empty:  # the process ended before it could say why
            raise EOFError from empty
        raise error if isinstance(error, BaseException) else kind(error)

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        level, gym.logger.min_level = gym.logger.min_level, 100
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self._state = AsyncState.DEFAULT
            time.sleep(0.1)  # for the exit status
            dead = {i: p.exitcode for i, p in enumerate(self.processes) if not p.is_alive()}
            found = ", ".join(f"{i} (exit status {code})" for i, code in dead.items())
            raise EnvironmentFailure(
                f"The process of environment {found or 'unknown'} of {self.num_envs} ended, killed "
                f"from outside or by its own code; resume the run, or set parallel_envs=false."
            ) from error
        finally:
            gym.logger.min_level = level


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Let processes that start in the body have the leaders' signals blocked from the beginning.

    A signal to this process waits until the body is over.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        # The helper process of multiprocessing must live as long; starting it unblocks signals.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


Vector = SyncVectorEnv | Workers
"""Environments in this process, or in one process each."""


def make_vector(
    factory: EnvFactory, *, num_envs: int, seed: int, parallel: bool = False, render: bool = False
) -> Vector:
    """Build environments that are reset by the caller, never by themselves.

    Args:
        factory: Makes one of them.
        num_envs: Number of environments N side by side, at least 1.
        seed: Seed of all; the seed of the i-th does not depend on how many there are.
        parallel: Give each a process of its own.
        render: Whether ``render()`` will be called, as for videos.

    Returns:
        The vector environment; ended ones start over by ``reset(options={"reset_mask": mask})``.

    Raises:
        UserError: If ``num_envs`` is less than one.
        EnvironmentFailure: If one cannot be made, or they differ in their spaces.
    """
    check_number("num_envs", num_envs, "[1, inf)", whole=True)
    seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(num_envs)]
    thunks = [partial(_build, factory, seeds[slot], slot, render) for slot in range(num_envs)]
    try:
        if parallel:
            return Workers(thunks)
        return SyncVectorEnv(thunks, autoreset_mode=AutoresetMode.DISABLED)
    except RuntimeError as error:  # of Gymnasium, which compares the spaces
        raise EnvironmentFailure(
            f"Environment {_name_of(factory)} has other spaces whenever it is made: "
            f"{shown_error(error)}; give all of them the same."
        ) from error


def _build(factory: EnvFactory, seed: int, slot: int, render: bool) -> Resumable:
    if multiprocessing.parent_process() is not None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    name = _name_of(factory)
    try:
        with kept_streams():
            env = factory(seed=seed, render=render)
    except BaseException as error:
        if is_ours(error):
            raise
        raise EnvironmentFailure.in_call(name, "make", error) from error
    if not isinstance(env, Resumable):
        raise UserError(
            f"The environment that {factory} makes is a {type(env).__name__}; "
            f"it must be wrapped in mbrl_flat.envs.wrappers.Resumable."
        )
    env.slot = slot
    if isinstance(factory, partial):  # otherwise it was given from Python and has its name
        env.name = name
    return env


def _name_of(factory: EnvFactory) -> str:
    """The task's name, where the factory says it."""
    if not isinstance(factory, partial):
        return getattr(factory, "__name__", type(factory).__name__)
    return repr(factory.keywords.get("task") or next(iter(factory.args), _name_of(factory.func)))


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
        native=env.get_attr("native")[0],
    )


def vector_state(env: Vector) -> list[dict[str, Any]]:
    """Everything that the future of the environments depends on."""
    return list(env.call("resume_state"))


def restore_vector(env: Vector, state: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Put back what ``vector_state`` gave.

    Args:
        env: Environments made as those were.
        state: What ``vector_state`` returned for as many environments.

    Returns:
        The current observations ``[N, ...]``.
    """
    env.reset()
    obs: tuple[dict[str, np.ndarray], ...] = env.call("restore_slot", state)
    return {name: np.stack([one[name] for one in obs]) for name in obs[0]}
