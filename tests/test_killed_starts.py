"""What a run leaves that is ended before its first step, and what the same command does then."""

import signal
import time

import pytest

MODULE = """
import os, pathlib, time
import gymnasium as gym
import numpy as np

class Slow(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        pathlib.Path(f"making{os.getpid()}").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), 0.0, False, False, {}

gym.register(id="Slow-v0", entry_point=Slow, max_episode_steps=20)
"""
WORDS = [
    "preset=debug", "threads=1", "progress=false", "steps=60", "seed_steps=40", "eval_every=0",
    "probe_every=0", "env=gym", "env.task=slow:Slow-v0", "num_envs=2",
]  # fmt: skip


@pytest.fixture
def start(tmp_path, start_training):
    (tmp_path / "slow.py").write_text(MODULE)
    return lambda *words: start_training(*WORDS, *words)


def wait_for_environment(folder):
    until = time.monotonic() + 240
    while not list(folder.glob("making*")):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("parallel", "number"), [(False, signal.SIGTERM), (True, signal.SIGUSR1)])
def test_a_signal_at_the_start_leaves_no_folder(start, tmp_path, parallel, number):
    process = start("run_dir=made/run", f"parallel_envs={parallel}".lower())
    wait_for_environment(tmp_path)
    assert (tmp_path / "made" / "run" / "config.yaml").exists()

    process.send_signal(number)
    if parallel:  # a signal waits until all processes are there
        (tmp_path / "go").touch()
    output = process.communicate(timeout=240)[0]

    assert process.returncode == 128 + number
    assert output == f"stopped by {number.name} before the first step\n"
    assert not (tmp_path / "made").exists()


def test_what_a_killed_start_leaves_is_started_again_by_the_same_command(start, tmp_path):
    process = start("run_dir=run")
    wait_for_environment(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / "run" / "config.yaml").exists()
    (tmp_path / "go").touch()

    again = start("run_dir=run")
    output = again.communicate(timeout=240)[0]

    assert again.returncode == 0, output
    first = "run holds a run that was killed before its first step; it starts again."
    assert output.splitlines()[0] == first
    assert (tmp_path / "run" / "checkpoints" / "latest.pt").exists()
    third = start("run_dir=run")
    assert "exists already and is never overwritten" in third.communicate(timeout=240)[0]
