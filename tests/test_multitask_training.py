"""Offline training on several tasks, from the command to the files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.training.checkpoint import load_safely
from mbrl_flat.training.trainer import Trainer

TASKS = "pendulum-swingup+reacher-easy"
RECORD = ["agent=random", "preset=debug", "steps=250", "eval_every=0", "env.action_repeat=10"]
QUIET = ["progress=false", "threads=1", "device=cpu"]
TINY = [
    "experiment=multitask_offline", "preset=debug", f"env.task={TASKS}",
    "env.base.action_repeat=10", "steps=40", "eval_every=40", "eval_episodes=1",
    "probe_every=40", "log_every=20", "checkpoint_every=20",
]  # fmt: skip


def command(monkeypatch, *arguments: str, entry=cli.train) -> None:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["mbrl-flat-train", *arguments])
    entry()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two episodes and a half of random actions in each of two tasks."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for task in TASKS.split("+"):
            where = [f"env.task={task}", f"run_dir={root / task}"]
            command(monkeypatch, *RECORD, *QUIET, *where)
    return root


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: str(v) for k, v in row.items() if k != "time" and not k.startswith("time/")}
        for row in rows
    ]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    agent = load_safely(folder / "checkpoints" / "latest.pt")["agent"]
    return {**agent["model"], **{f"policy.{k}": v for k, v in agent["policy"].items()}}


def train(monkeypatch, folder: Path, data: Path, *arguments: str) -> list[dict[str, Any]]:
    given = f"offline_data=[{data}/*]"
    command(monkeypatch, *TINY, *QUIET, given, f"run_dir={folder}", *arguments)
    return rows_of(folder)


@pytest.mark.sim
def test_the_recipe_trains_evaluates_every_task_and_is_evaluated_again(
    data, tmp_path, monkeypatch, capsys
):
    rows = train(monkeypatch, tmp_path / "run", data, "optimizer=sam")
    last: dict[str, str] = {}
    for row in rows:
        last |= row
    assert float(last["train/updates"]) == 40.0
    assert float(last["optim/evaluations_total"]) == 80.0
    assert last["frame"] == last["step"] == "40"
    names = TASKS.split("+")
    for quantity in ("return_mean", "normalised_score", "policy_return_mean"):
        each = [float(last[f"eval/{task}/{quantity}"]) for task in names]
        assert float(last[f"eval/{quantity}"]) == pytest.approx(np.mean(each))
    score = float(last["eval/reacher-easy/normalised_score"])
    assert score == pytest.approx(float(last["eval/reacher-easy/return_mean"]) / 1000.0)
    assert "probe/value/pendulum-swingup/bias" in last
    assert float(last["probe/sharpness/lambda_max"]) > 0.0
    summary = json.loads((tmp_path / "run" / "data.json").read_text())
    found = [(one["task"], one["episodes"], one["transitions"]) for one in summary]
    assert found == [(task, 2, 200) for task in names]
    capsys.readouterr()
    again = ["episodes=1", f"run={tmp_path / 'run'}", "threads=1", "device=cpu"]
    command(monkeypatch, *again, entry=cli.evaluate)
    assert "eval/pendulum-swingup/return_mean" in capsys.readouterr().out


@pytest.mark.sim
def test_radius_zero_is_adam_and_a_cut_run_goes_on_bit_for_bit(data, tmp_path, monkeypatch):
    off = ["eval_every=0", "probe_every=0"]
    train(monkeypatch, tmp_path / "adam", data, "optimizer=adam", *off)
    whole = train(monkeypatch, tmp_path / "zero", data, "optimizer=sam", "optimizer.rho=0", *off)
    expected = weights_of(tmp_path / "adam")
    assert all(torch.equal(expected[k], v) for k, v in weights_of(tmp_path / "zero").items())

    class Killed(BaseException):
        pass

    advance = Trainer._advance

    def die_at_30(self: Trainer) -> None:
        if self.step == 30:
            raise Killed
        advance(self)

    monkeypatch.setattr(Trainer, "_advance", die_at_30)
    with pytest.raises(Killed):
        train(monkeypatch, tmp_path / "cut", data, "optimizer=sam", "optimizer.rho=0", *off)
    monkeypatch.setattr(Trainer, "_advance", advance)
    command(monkeypatch, f"resume={tmp_path / 'cut'}", "progress=false")
    assert rows_of(tmp_path / "cut") == whole
    assert all(torch.equal(expected[k], v) for k, v in weights_of(tmp_path / "cut").items())


@pytest.mark.sim
def test_a_single_task_learns_from_recorded_runs_too(data, tmp_path, monkeypatch):
    where = [f"offline_data=[{data}/reacher-easy]", f"run_dir={tmp_path / 'run'}"]
    settings = ["preset=debug", "env.task=reacher-easy", "env.action_repeat=10", "steps=10"]
    command(monkeypatch, *settings, *QUIET, *where, "eval_every=0", "probe_every=0")
    summary = json.loads((tmp_path / "run" / "data.json").read_text())
    assert [one["transitions"] for one in summary] == [200]
    assert float(rows_of(tmp_path / "run")[-1]["train/updates"]) == 10.0


@pytest.mark.sim
@pytest.mark.parametrize(
    "case",
    [
        ("offline_data=[{data}/pendulum-swingup]", "no complete episode of reacher-easy"),
        ("offline_data=[{data}/nothing]", "There is no run at"),
        ("offline_data=[]", "name their folders by offline_data="),
        ("env.task=pendulum-swingup+walker-walk", "Unknown task 'reacher-easy' for the run"),
        ("env.base.action_repeat=5", "repeats each action 10 times, and this one 5"),
        ("replay_capacity=300", "do not fit into a replay of 304 slots; raise replay_capacity"),
        ("num_envs=2", "num_envs=2 was given; leave it out"),
        ("agent.config.task_dim=0", "set agent.config.task_dim=96"),
    ],
)
def test_data_that_does_not_fit_is_told_in_one_sentence(data, tmp_path, monkeypatch, capsys, case):
    argument, words = case
    with pytest.raises(SystemExit) as caught:
        train(monkeypatch, tmp_path / "run", data, argument.format(data=data))
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
