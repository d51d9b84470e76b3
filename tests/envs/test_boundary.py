"""What an environment's code may do wrong, and what a run makes of it."""

import os
import random
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from mbrl_flat.envs import make_vector, randomness, restore_vector, vector_state
from mbrl_flat.envs.gym import adapt, make
from mbrl_flat.errors import EnvironmentFailure, UserError
from mbrl_flat.runtime.interrupts import STOP_SIGNALS

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Walk(gym.Env):
    """A walk whose randomness comes from where a subclass says."""

    observation_space, action_space = BOX, gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    seeds: tuple = ()

    def draw(self):
        return self.np_random.random()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds += (seed,)
        self.place = np.array([self.draw(), 0.0], np.float32)
        return self.place.copy(), {}

    def step(self, action):
        self.place = self.place + np.float32(0.1 * self.draw()) + np.float32(action[0])
        return self.place.copy(), 1.0, False, False, {}


class NumpyWalk(Walk):
    def draw(self):
        return np.random.random()  # noqa: NPY002


class PythonWalk(Walk):
    def draw(self):
        return random.random()


class TorchWalk(Walk):
    def draw(self):
        return float(torch.rand(()))


class SamplingWalk(Walk):
    def draw(self):
        return float(self.action_space.sample()[0])


class UnseededWalk(Walk):
    def __init__(self):
        self.own = np.random.default_rng()

    def draw(self):
        return self.own.random()


class MersenneWalk(Walk):
    """Its stream has arrays in its state."""

    def reset(self, *, seed=None, options=None):
        self.np_random = np.random.Generator(np.random.MT19937(seed))
        return super().reset(seed=None)


class FailingWalk(Walk):
    def step(self, action):
        if self.place[1] > 2.5:
            raise ZeroDivisionError("of the simulator")
        self.place[1] += 1.0
        return self.place.copy(), np.array([1.0]), np.array(False), False, {"odd": [[1], [2, 3]]}


KINDS = [NumpyWalk, PythonWalk, TorchWalk, SamplingWalk, UnseededWalk, MersenneWalk, FailingWalk]


@pytest.fixture(autouse=True)
def registered():
    for kind in (Walk, *KINDS):
        gym.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=30)
    yield
    for kind in (Walk, *KINDS):
        gym.registry.pop(f"{kind.__name__}-v0")


def run(envs, steps):
    return [
        envs.step(np.full((envs.num_envs, 1), 0.1, np.float32))[0]["state"] for _ in range(steps)
    ]


def test_every_reset_passes_an_integer_seed_of_a_saved_stream():
    env = make("Walk-v0", seed=3)
    env.unwrapped.seeds = ()
    for _ in range(3):
        env.reset()

    seeds = env.unwrapped.seeds
    assert len(set(seeds)) == 3
    assert all(isinstance(seed, int) for seed in seeds)
    again = make("Walk-v0", seed=3)
    again.restore(env.resume_state())
    assert again.unwrapped.seeds[-1] == seeds[-1]
    for one in (env, again):
        one.reset()
    assert again.unwrapped.seeds[-1] == env.unwrapped.seeds[-1]


@pytest.mark.parametrize(
    "kind", [Walk, NumpyWalk, PythonWalk, TorchWalk, SamplingWalk, MersenneWalk]
)
def test_a_run_is_resumed_exactly_whatever_the_environment_draws_from(kind, tmp_path):
    factory = partial(make, f"{kind.__name__}-v0")
    envs = make_vector(factory, num_envs=2, seed=1)
    envs.reset()
    run(envs, 4)
    torch.save(vector_state(envs), tmp_path / "state.pt")
    expected = run(envs, 3), envs.reset()[0]["state"], run(envs, 2)

    twins = make_vector(factory, num_envs=2, seed=1)
    np.random.random(5)  # noqa: NPY002 - as other code in between does
    restore_vector(twins, torch.load(tmp_path / "state.pt", weights_only=True))

    found = run(twins, 3), twins.reset()[0]["state"], run(twins, 2)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NumpyWalk, "draws from the global random state of numpy.random"),
        (PythonWalk, "draws from the global random state of random"),
        (TorchWalk, "draws from the global random state of torch"),
        (SamplingWalk, "calls sample() of its spaces"),
        (UnseededWalk, "does not repeat an episode"),
    ],
)
def test_randomness_that_no_seed_reaches_is_named_once(kind, words, capfd):
    name = f"{kind.__name__}-v0"
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002

    for settings in ({"size": 63}, {"size": 62}):
        make(name, seed=0, **settings)

    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert capfd.readouterr().err.count(f"Environment {name!r} {words}") <= 1
    from mbrl_flat.envs import randomness

    randomness._examined.clear()
    make(name, seed=0)
    assert f"Environment {name!r} {words}" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["Walk-v0", "Pendulum-v1", "CartPole-v1"])
def test_an_environment_that_follows_its_seeds_is_not_named(name, capfd):
    randomness._examined.clear()
    env = make(name, seed=0)

    assert capfd.readouterr().err == ""
    assert not randomness._examined[repr(name)]
    assert not isinstance(env.env, randomness.OwnGlobalStreams)


def test_an_episode_that_cannot_be_repeated_is_not_resumed():
    env = adapt(UnseededWalk(), name="'it'", seed=0)
    env.reset()
    env.step(np.zeros(1, np.float32))
    state = env.resume_state()

    with pytest.raises(UserError, match="Environment 'it' did not return to where the checkpoint"):
        adapt(UnseededWalk(), name="'it'", seed=0).restore(state)


def test_rewards_of_one_entry_and_any_info_just_work():
    envs = make_vector(partial(adapt_failing, None), num_envs=2, seed=0)
    envs.reset()

    _, reward, terminated, _, info = envs.step(np.zeros((2, 1), np.float32))

    assert reward.tolist() == [1.0, 1.0]
    assert not terminated.any()
    assert info == {}


def adapt_failing(task, *, seed, render=False):
    return adapt(FailingWalk(), name="'failing'", seed=seed)


MODULE = """
import os
import gymnasium as gym, numpy as np

class Failing(gym.Env):
    observation_space = action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps > 20:
            1 / 0
        if action[0] == 0.5:
            os._exit(7)
        return np.zeros(1, np.float32), 1.0, False, False, {}

gym.register("Failing-v0", Failing, max_episode_steps=50)
"""


@pytest.fixture
def failing(tmp_path, monkeypatch):
    (tmp_path / "failing_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield partial(make, task="failing_module:Failing-v0")
    gym.registry.pop("Failing-v0")
    sys.modules.pop("failing_module")


@pytest.mark.parametrize("parallel", [False, True])
def test_an_error_of_the_code_names_environment_and_call(failing, parallel, capfd):
    envs = make_vector(failing, num_envs=2, seed=0, parallel=parallel)
    try:
        envs.reset()
        with pytest.raises(
            EnvironmentFailure,
            match=r"'failing_module:Failing-v0' failed in step\(\): ZeroDivisionError: division by",
        ):
            run(envs, 25)
    finally:
        envs.close()
    assert "Traceback" not in capfd.readouterr().err


class OwnInterrupt(KeyboardInterrupt):
    """As a simulator that handles Ctrl-C itself might raise."""


class UntellableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (SystemExit(0), r"SystemExit: 0; correct"),
        (SystemExit("bye"), r"SystemExit: bye; correct"),
        (ValueError("one\ntwo\n" + "x" * 9000), r"ValueError: one two x{492}\.\.\.; correct"),
        (UntellableError(), r"UntellableError: its text cannot be shown; correct"),
        (StopIteration(), r"StopIteration; correct"),
        (GeneratorExit("shut"), r"GeneratorExit: shut; correct"),
        (OwnInterrupt("no"), r"OwnInterrupt: no; correct"),
        (BaseExceptionGroup("two", [KeyboardInterrupt()]), r"BaseExceptionGroup: two .*; correct"),
    ],
)
def test_whatever_a_step_raises_is_one_short_line(raised, said):
    class Raising(Walk):
        def step(self, action):
            raise raised

    env = adapt(Raising(), name="'it'", seed=0)
    env.reset()

    with pytest.raises(EnvironmentFailure, match=rf"'it' failed in step\(\): {said}") as failed:
        env.step(np.zeros(1, np.float32))
    assert "\n" not in str(failed.value)


def test_code_that_changes_torch_for_the_whole_process_is_named():
    class Double(Walk):
        def step(self, action):
            torch.set_default_dtype(torch.float64)
            return super().step(action)

    class Frozen(Walk):
        def reset(self, **kwargs):
            torch.set_grad_enabled(False)
            return super().reset(**kwargs)

    try:
        env = adapt(Double(), name="'it'", seed=0)
        env.reset()
        with pytest.raises(EnvironmentFailure, match=r"'it' changed .*default dtype.*in step\(\)"):
            env.step(np.zeros(1, np.float32))
        with pytest.raises(EnvironmentFailure, match=r"'it' changed .*grad mode.*in reset\(\)"):
            adapt(Frozen(), name="'it'", seed=0).reset()
        assert torch.get_default_dtype() is torch.float32
        assert torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("call", ["__init__", "reset", "step"])
def test_a_stream_that_an_environment_takes_away_is_given_back(monkeypatch, name, call):
    """Otherwise a run ends in a traceback when it prints its last lines."""
    monkeypatch.setattr(sys, name, stream := getattr(sys, name))

    def taking(self, *args, **kwargs):
        setattr(sys, name, None)
        return getattr(Walk, call)(self, *args, **kwargs)

    env = type("Taking", (Walk,), {call: taking})
    vector = make_vector(lambda **_: adapt(env(), name="'it'", seed=0), num_envs=1, seed=0)
    vector.reset()
    vector.step(np.zeros((1, 1), np.float32))

    assert getattr(sys, name) is stream


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ((None, False, False), "reward is None and not a number"),
        (("1.0", False, False), "reward is '1.0' and not a number"),
        ((1j, False, False), "reward is 1j and not a number"),
        ((1.0, None, False), "terminated is None and not a number"),
        ((1.0, False, "False"), "truncated is 'False' and not a number"),
        ((10**400, False, False), "OverflowError"),
        ((1.0, float("nan"), False), "terminated is nan and neither true nor false"),
        ((1.0, False, 0.5), "truncated is 0.5 and neither true nor false"),
        ((1.0, False, False, {"success": np.nan}), r"it returned nan as its info\['success'\]"),
        ((1.0, False, False, {"is_success": -np.inf}), r"-inf as its info\['success'\]"),
    ],
)
def test_what_is_no_number_is_not_taken_for_one(result, said):
    class Odd(Walk):
        def step(self, action):
            return np.zeros(2, np.float32), *result, *[{}][: 4 - len(result)]

    env = adapt(Odd(), name="'it'", seed=0)
    env.reset()

    with pytest.raises(EnvironmentFailure, match=said):
        env.step(np.zeros(1, np.float32))


def test_a_process_that_dies_is_named(failing):
    envs = make_vector(failing, num_envs=2, seed=0, parallel=True)
    try:
        envs.reset()
        with pytest.raises(EnvironmentFailure, match=r"process of environment 1 \(exit status 7\)"):
            envs.step(np.array([[0.0], [0.5]], np.float32))
    finally:
        envs.close()


def test_workers_outlive_signals_to_their_group_and_state_can_be_saved(failing):
    """What a scheduler sends before the end of a job reaches every process of it."""
    envs = make_vector(failing, num_envs=2, seed=0, parallel=True)
    try:
        envs.reset()
        run(envs, 2)
        for process in envs.processes:
            for number in STOP_SIGNALS:
                os.kill(process.pid, number)
        run(envs, 2)
        assert [len(state["actions"]) for state in vector_state(envs)] == [4, 4]
    finally:
        envs.close()
    assert not any(process.is_alive() for process in envs.processes)


def test_an_observation_of_another_shape_is_named():
    class Growing(Walk):
        def step(self, action):
            return np.zeros(3, np.float32), 1.0, False, False, {}

    env = adapt(Growing(), name="'it'", seed=0)
    env.reset()

    with pytest.raises(EnvironmentFailure, match=r"'it' failed in step.*shape \(3,\).*has \(2,\)"):
        env.step(np.zeros(1, np.float32))


def test_what_making_raises_is_named():
    def broken(*, seed, render=False):
        raise OSError("no licence")

    with pytest.raises(EnvironmentFailure, match=r"broken failed in make\(\): OSError: no licence"):
        make_vector(broken, num_envs=1, seed=0)


def test_complex_observations_and_a_close_that_fails_are_named(capfd):
    class Complex(Walk):
        def step(self, action):
            return np.array([1j, 0.0]), 1.0, False, False, {}

        def close(self):
            raise OSError("the simulator is gone")

    env = adapt(Complex(), name="'it'", seed=0)
    env.reset()
    with pytest.raises(EnvironmentFailure, match=r"'it' failed in step\(\): .*complex numbers"):
        env.step(np.zeros(1, np.float32))
    env.close()
    assert "note: Environment 'it' failed in close(): OSError: the simulator is" in (
        capfd.readouterr().err
    )


@pytest.mark.parametrize("info", [None, [1], "text"])
def test_a_step_without_its_dict_is_named(info):
    class Odd(Walk):
        def step(self, action):
            return *super().step(action)[:4], info

    gym.register(id="Odd-v0", entry_point=Odd, max_episode_steps=20)
    try:
        with pytest.raises(EnvironmentFailure, match=r"must return five things: .* and a dict"):
            make("Odd-v0", seed=0)  # which plays a step, to see what it draws from
    finally:
        del gym.registry["Odd-v0"]
