"""What tests share: one thread, two tiny environments' shapes, and commands in this process."""

import os
import subprocess
import sys

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

from mbrl_flat.cli import main as cli
from mbrl_flat.envs.dmc import set_renderer
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

# Simulators read the choice when the first test module imports one.
set_renderer()
torch.set_num_threads(1)
# The same examples on every machine, and no verdict on how long a busy one takes for them.
settings.load_profile("ci")


@pytest.fixture
def one_thread():
    """Fused operators are for few threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def spec():
    return EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)


@pytest.fixture
def discrete_spec():
    return EnvSpec(obs={"state": (3,)}, action=Discrete(num=4), episode_length=50)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run an entry point with these arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(entry, *arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", ["mbrl-flat", *arguments])
        entry()

    return run


@pytest.fixture
def start_training(tmp_path):
    """Start mbrl-flat-train in an empty folder and a process group of its own.

    It can import modules of that folder. What still runs at the end is killed.
    """
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from mbrl_flat.cli.main import train; train()", *words],
            cwd=tmp_path, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def fails(command, capsys):
    """Run, expect exit status 2 and exactly one line on stderr, and return it."""

    def run(*arguments, entry=cli.train):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            command(entry, *arguments)
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1, message
        return message

    return run
