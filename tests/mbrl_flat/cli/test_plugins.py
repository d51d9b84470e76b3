"""Parts of another installed package: found by its entry points, chosen like ours."""

import importlib
import json
import sys
from unittest import mock

import pytest

import mbrl_flat
from mbrl_flat.cli import composition, help
from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, make_optimizer

PACKAGE = '''
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch

from mbrl_flat.agents.random_agent import RandomAgent
from mbrl_flat.envs.gym import adapt
from mbrl_flat.optim import register
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


class Slope(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, task, steepness):
        self.task, self.steepness = task, steepness

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32), {}

    def step(self, action):
        self.count += 1
        obs = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return obs, self.steepness * float(action[0]), False, self.count == 10, {}


def make(task: str, *, seed: int, render: bool = False, steepness: float = 1.0):
    return adapt(Slope(task, steepness), name=task, seed=seed)


@dataclass(frozen=True)
class LoudConfig:
    volume: float = 0.5


class Loud(RandomAgent):
    """The random agent with a setting."""

    def __init__(self, spec, *, config: LoudConfig, optimizer, device, compile=False):
        super().__init__(spec)
        self.config = config


class Counter:
    def __init__(self, start: int = 3):
        self.start = start

    def __call__(self, agent, replay):
        return {"probe/counter": float(self.start)}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@register("sign_sam", evaluations=2, memory=2, neutral={"rho": 0.0})
class SignSAM(SharpnessAware):
    rho: float = 0.01

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        return selection.times_radius([grad.sign() for grad in selection.grads], 1.0)
'''
ENTRY_POINTS = """
[mbrl_flat.optimizers]
slopes = slopes_package
[mbrl_flat.envs]
slope = slopes_package:make
[mbrl_flat.agents]
loud = slopes_package:Loud
[mbrl_flat.probes]
counter = slopes_package:Counter
"""
TINY = ["preset=debug", "device=cpu", "steps=40", "seed_steps=20", "log_every=10", "eval_every=0"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path with a ``dist-info``, as pip installs it."""
    site = tmp_path / "site"
    info = site / "slopes_package-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "slopes_package.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slopes-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    composition.catalogue.cache_clear()
    with mock.patch.dict(OPTIMIZERS):
        yield site
    sys.modules.pop("slopes_package", None)
    composition.catalogue.cache_clear()


def run(command, monkeypatch, *words):
    monkeypatch.setattr("sys.argv", [command, *words])
    getattr(cli, command)()


def test_a_run_chooses_all_four_by_name_and_resumes_without_trust(package, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    words = ["env=slope", "env.steepness=2.0", "optimizer=sign_sam", "optimizer.rho=0.02"]
    run(
        "train", monkeypatch, *words, *TINY, f"run_dir={folder}", "progress=false",
        "+probe@probes.counter=counter", "probes.counter.start=7", "probe_every=40",
    )  # fmt: skip
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["probe/counter"] for row in rows if "probe/counter" in row][-1] == 7.0
    assert any("optim/perturbation_norm" in row for row in rows)

    run("train", monkeypatch, f"resume={folder}", "steps=50")
    run("probe", monkeypatch, f"run={folder}", "probe=counter")
    assert json.loads((folder / "probes.jsonl").read_text())["probe/counter"] == 3.0


def test_an_agent_and_its_dataclass_of_settings_are_composed(package):
    config, parts = composition.compose_run("agent=loud", "env=slope", "agent.config.volume=0.9")
    assert config.names == {} or config.agent["config"]["volume"] == 0.9
    assert parts.agent.keywords["config"].volume == 0.9
    assert parts.env.keywords == {"task": "slope", "steepness": 1.0}


def test_python_and_the_help_know_them(package, tmp_path):
    agent = mbrl_flat.TDMPC2(
        "slope", preset="debug", optimizer="sign_sam", rho=0.05, run_dir=tmp_path / "run",
        settings={"device": "cpu"},
    )  # fmt: skip
    assert agent.predict([0.1, 0.2]).shape == (1,)
    assert {"slope", "loud"} <= set(help.help_text("train").split())
    assert "counter" in help.help_text("probe").split()


def test_a_method_of_the_package_is_made_by_its_name(package):
    import torch

    model = torch.nn.Linear(2, 1)
    assert make_optimizer("sign_sam", model, lr=0.1, rho=0.3).rho == 0.3


def test_a_package_that_cannot_be_imported_is_named(package):
    (package / "slopes_package.py").write_text("import not_there\n")
    with pytest.raises(UserError, match=r"slopes-package offers env=slope, .*not_there"):
        composition.compose_run("env=slope")
