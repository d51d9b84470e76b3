"""Errors of an environment's code in processes of its own, in rendering and in closing."""

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from mbrl_flat.envs import dummy, make_vector, vector, wrappers
from mbrl_flat.envs.gym import make
from mbrl_flat.errors import EnvironmentFailure, UserError, is_ours

MODULE = """
import multiprocessing, time
import gymnasium as gym, numpy as np

IN_WORKER = multiprocessing.parent_process() is not None

class Local(Exception):
    def __init__(self):
        super().__init__("two", lambda: None)  # which no pickle holds

class Faulty(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, fault="none", render_mode=None):
        self.fault, self.render_mode, self.drawn = fault, render_mode, 0
        if fault == "make" and IN_WORKER:
            raise Local

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        self.steps += 1
        obs, reward, info = np.zeros(self.observation_space.shape, np.float32), 1.0, {}
        if self.steps > 15:
            if self.fault == "exit":
                raise SystemExit(0)
            if self.fault == "interrupt":
                raise KeyboardInterrupt
            if self.fault == "unpicklable":
                raise Local
            obs = {"shape": np.zeros(3), "text": np.array(["1", "2"])}.get(self.fault, obs)
            obs = np.array([0, np.nan], np.float32) if self.fault == "not-finite" else obs
            reward = np.inf if self.fault == "reward" else 1.0
            info = {"success": lambda: 1} if self.fault == "info" else {}
        return obs, reward, False, False, info

    def render(self):
        self.drawn += 1
        image = np.zeros((8, 8, 3), np.uint8)
        late = {"none": None, "float": image / 255.0, "grey": image[..., 0], "size": image[:4]}
        if self.fault.startswith("draw-") and self.drawn > 1:
            return late[self.fault[5:]]
        return image

    def close(self):
        if self.fault == "close":
            raise OSError("the simulator is gone")
        if self.fault == "hang":
            time.sleep(4)

gym.register("Faulty-v0", Faulty, max_episode_steps=50)
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    (tmp_path / "faulty_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda fault: partial(make, task="faulty_module:Faulty-v0", kwargs={"fault": fault})
    gym.registry.pop("Faulty-v0", None)
    sys.modules.pop("faulty_module", None)


def play(factory, **how):
    envs = make_vector(factory, seed=0, **how)
    with contextlib.closing(envs):
        _play(envs)


def _play(envs):
    envs.reset()
    for _ in range(20):
        envs.step(np.zeros((envs.num_envs, 2), np.float32))


IN_STEP = {
    "exit": "SystemExit: 0;",
    "unpicklable": r"Local: \('two', <function",
    "shape": r"observation 'state' has shape \(3,\)",
    "text": "observation holds <U1",
    "not-finite": r"it returned nan as its observation 'state'\[1\]",
    "reward": "it returned inf as its reward;",
    "info": r"info\['success'\] is <function .* and not a number",
}


@pytest.mark.parametrize("fault", IN_STEP)
def test_what_a_step_raises_or_returns_is_named(faulty, fault):
    said = rf"Faulty-v0' failed in step\(\): .*{IN_STEP[fault]}"
    with pytest.raises(EnvironmentFailure, match=said):
        play(faulty(fault), num_envs=1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unpicklable", r"failed in step\(\): Local: "),
        ("interrupt", r"failed in step\(\): KeyboardInterrupt;"),
        ("make", r"'faulty_module:Faulty-v0' cannot be made: its code raises Local: "),
    ],
)
def test_what_a_worker_raises_is_named_and_no_process_is_left(faulty, fault, said, capfd):
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match=said):
        play(faulty(fault), num_envs=2, parallel=True)

    assert set(multiprocessing.active_children()) <= before
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("at", ["first lock", "second process"])
def test_a_machine_that_starts_no_more_processes_is_named(monkeypatch, at):
    """With a full /dev/shm there are no locks; processes, open files and pipes have limits."""
    started = []

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def start(process):
        started.append(process)
        return full() if len(started) > 1 else popen(process)

    popen = multiprocessing.context.SpawnProcess._Popen
    if at == "first lock":
        monkeypatch.setattr(multiprocessing.synchronize._multiprocessing, "SemLock", full)
    else:
        monkeypatch.setattr(multiprocessing.context.SpawnProcess, "_Popen", staticmethod(start))
    with pytest.raises(UserError, match=r"started \(No space left.*parallel_envs=false"):
        make_vector(partial(dummy.make, "point"), num_envs=2, seed=0, parallel=True)
    assert not multiprocessing.active_children()


def test_closing_that_fails_is_a_note(faulty, capfd):
    envs = make_vector(faulty("close"), num_envs=2, seed=0)
    capfd.readouterr()

    envs.close()

    assert capfd.readouterr().err == (
        "note: Environment 'faulty_module:Faulty-v0' failed in close(): OSError: the simulator is "
        "gone; correct its code or settings (in a command, debug=true shows where).\n"
    )


def test_closing_that_hangs_ends(faulty, monkeypatch, capfd):
    monkeypatch.setattr(wrappers, "_CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(vector, "_PATIENCE_SECONDS", 1.0)
    begin = time.monotonic()
    for parallel in (False, True):
        envs = make_vector(faulty("hang"), num_envs=2, seed=0, parallel=parallel)
        envs.close()
        if parallel:
            assert not any(process.is_alive() for process in envs.processes)

    assert time.monotonic() - begin < 300
    assert (
        "failed in close(): TimeoutError: it took more than 0.2 seconds" in capfd.readouterr().err
    )
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("draw-none", "it returned None; it must return an image"),
        ("draw-float", r"it returned float64 of shape \(8, 8, 3\)"),
        ("draw-grey", r"it returned uint8 of shape \(8, 8\)"),
        ("draw-size", r"its images had shape \(8, 8, 3\), and now one has \(4, 8, 3\)"),
    ],
)
def test_what_is_no_image_is_named(faulty, fault, said):
    envs = make_vector(faulty(fault), num_envs=1, seed=0, render=True)
    envs.reset()

    envs.render()
    with pytest.raises(EnvironmentFailure, match=rf"Faulty-v0' failed in render\(\): .*{said}"):
        envs.render()


def test_ctrl_c_is_told_from_an_interrupt_of_the_environments_own():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert is_ours(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as pressed:
            signal.raise_signal(signal.SIGINT)
        assert is_ours(pressed.value)
        with pytest.raises(KeyboardInterrupt) as raised:
            raise KeyboardInterrupt
        assert not is_ours(raised.value)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a worker
        assert not is_ours(KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)
