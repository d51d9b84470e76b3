"""What happens to a whole run from outside: signals to its group, a folder that disappears."""

import json
import os
import shutil
import signal
import time

import pytest

MODULE = """
import gymnasium as gym
import numpy as np

class Still(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), 1.0, False, False, {}

gym.register(id="Still-v0", entry_point=Still, max_episode_steps=20)
"""
WORDS = [
    "preset=debug", "threads=1", "progress=false", "seed_steps=40", "eval_every=0", "log_every=20",
    "probe_every=0", "env=gym", "env.task=still:Still-v0", "num_envs=2", "run_dir=run",
]  # fmt: skip


@pytest.fixture
def start(tmp_path, start_training):
    (tmp_path / "still.py").write_text(MODULE)
    return start_training


def last_step(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def wait_for_step(folder, step):
    until = time.monotonic() + 240
    while last_step(folder) < step:
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_for_the_end_of(group):
    """The trackers of multiprocessing end shortly after their leader."""
    until = time.monotonic() + 60
    try:
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.05)
    except ProcessLookupError:
        return
    raise AssertionError("a process is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_group_saves_the_run_and_leaves_no_process(start, tmp_path, number):
    process = start(*WORDS, "steps=100000", "parallel_envs=true")
    wait_for_step(tmp_path / "run", 60)

    os.killpg(process.pid, number)
    output = process.communicate(timeout=240)[0]

    assert process.returncode == 128 + number
    assert "Traceback" not in output
    wait_for_the_end_of(process.pid)
    assert (tmp_path / "run" / "checkpoints" / "latest.pt").exists()
    stopped = last_step(tmp_path / "run")
    resumed = start("resume=run", f"steps={stopped + 40}", "progress=false", "trust=still")
    output = resumed.communicate(timeout=240)[0]
    assert resumed.returncode == 0, output
    assert last_step(tmp_path / "run") >= stopped + 40


def test_a_folder_that_disappears_ends_the_run(start, tmp_path):
    process = start(*WORDS, "steps=100000")
    wait_for_step(tmp_path / "run", 60)
    shutil.rmtree(tmp_path / "run")
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 2
    assert "was deleted or moved during the run" in output
    assert "Traceback" not in output


def test_more_environments_than_steps_are_refused(start, tmp_path):
    process = start(*WORDS, "steps=30", "num_envs=50", "seed_steps=10")
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 2
    assert "num_envs" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
