"""The whole path, environment to metrics, on the dummy environment."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import commands as cli
from mbrl_flat.logging.jsonl import JsonlLogger
from mbrl_flat.runs.train import train_run
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.training.checkpoint import load_safely
from mbrl_flat.training.trainer import Trainer

TINY = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu",
    "eval_episodes=1", "eval_every=200", "probe_every=100", "log_every=50",
]  # fmt: skip


def run(folder: Path, *overrides: str, stopped: bool = False) -> list[dict[str, Any]]:
    """Train in ``folder`` and return the metrics without times."""
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        cfg = compose("train", overrides=[*TINY, *overrides])
    folder.mkdir(exist_ok=True)
    status = train_run(*cli.build_run(cfg), folder)
    assert status == (143 if stopped else 0)
    return metrics(folder)


def metrics(folder: Path, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            key: "nan" if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
            if key != "time" and not key.startswith("time/") and key not in without
        }
        for row in rows
    ]


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for item in items for tensor in tensors(item)]


def agent_tensors(folder: Path) -> list[torch.Tensor]:
    agent = load_safely(folder / "checkpoints" / "latest.pt")["agent"]
    return tensors({"model": agent["model"], "policy": agent["policy"]})


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(tmp_path):
    first = run(tmp_path / "a", "steps=150", "seed=1")
    assert first == run(tmp_path / "b", "steps=150", "seed=1")
    assert first != run(tmp_path / "c", "steps=150", "seed=2")


@pytest.mark.parametrize("method", ["sam", "random_direction"])
def test_radius_zero_is_the_base_optimizer_bit_for_bit_over_300_updates(tmp_path, method):
    steps = "steps=320"
    run(tmp_path / "base", "optimizer=adam", steps)
    run(tmp_path / "zero", f"optimizer={method}", "optimizer.rho=0", steps)
    aside = ("optim/evaluations", "optim/evaluations_total")
    base = metrics(tmp_path / "base", without=aside)
    assert base == metrics(tmp_path / "zero", without=aside)
    assert max(row.get("train/updates", 0) for row in base) >= 300
    pairs = zip(agent_tensors(tmp_path / "base"), agent_tensors(tmp_path / "zero"), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_positive_radius_perturbs_by_its_length_and_evaluates_twice(tmp_path):
    rows = run(tmp_path / "sam", "optimizer=sam", "optimizer.rho=0.05", "steps=150")
    steps = [row for row in rows if "optim/perturbation_norm" in row]
    assert steps
    assert {row["optim/evaluations"] for row in steps} == {2.0}
    norms = [row["optim/perturbation_norm"] for row in steps]
    assert norms == pytest.approx([0.05] * len(steps), rel=1e-4)


RARE = ["replay.policy=top_energy", "replay.every=40", "replay.candidates=64"]


def test_replay_by_energy_changes_the_run(tmp_path):
    assert run(tmp_path / "a", "steps=150") != run(tmp_path / "b", "steps=150", *RARE)


@pytest.mark.parametrize(
    ("place", "at"),
    [("evaluation.episodes", 0), ("evaluation.episodes", 200), ("diagnostics.lanczos", 200)],
)
def test_a_measurement_is_cancelled_by_a_signal_and_repeated(
    tmp_path, monkeypatch, capfd, place, at
):
    settings = ["optimizer=sam", "steps=220", "checkpoint_every=0"]
    whole = run(tmp_path / "whole", *settings)
    steps = []
    measure = Trainer._measure

    def noted(self, *arguments, **words):
        steps.append(self.step)
        return measure(self, *arguments, **words)

    def stop():
        if steps[-1] == at:
            os.kill(os.getpid(), signal.SIGTERM)
        check_interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_measure", noted)
        patch.setattr(f"mbrl_flat.{place}.check_interrupt", stop)
        cut = run(tmp_path / "cut", *settings, stopped=True)
    assert cut == [row for row in whole if row["step"] < at]
    assert capfd.readouterr().err.count("stopping and saving") == 1
    assert load_safely(tmp_path / "cut" / "checkpoints" / "latest.pt")["step"] == at
    assert run(tmp_path / "cut", *settings) == whole


@pytest.mark.parametrize("words", [["optimizer=adam"], ["optimizer=sam"], RARE])
def test_a_run_cut_at_a_checkpoint_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, words):
    settings = [*words, "steps=260", "checkpoint_every=60"]
    whole = run(tmp_path / "whole", *settings)

    class Killed(BaseException):
        pass

    advance = Trainer._advance

    def die_at_210(self: Trainer) -> None:
        if self.step == 210:
            raise Killed
        advance(self)

    monkeypatch.setattr(Trainer, "_advance", die_at_210)
    with pytest.raises(Killed):
        run(tmp_path / "cut", *settings)
    monkeypatch.undo()
    assert load_safely(tmp_path / "cut" / "checkpoints" / "latest.pt")["step"] == 180
    assert run(tmp_path / "cut", *settings) == whole
    pairs = zip(agent_tensors(tmp_path / "whole"), agent_tensors(tmp_path / "cut"), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_frames_are_steps_times_the_action_repeat(tmp_path):
    rows = run(tmp_path / "a", "steps=150", "env.action_repeat=2")
    assert all(row["frame"] == 2 * row["step"] for row in rows)


def test_the_log_waits_for_the_disk_at_measurements_and_checkpoints_alone(tmp_path, monkeypatch):
    asked: list[None] = []
    position = JsonlLogger.position.fget
    monkeypatch.setattr(
        JsonlLogger, "position", property(lambda self: (asked.append(None), position(self))[1])
    )

    run(tmp_path / "a", "steps=100", "updates_per_step=0", "eval_every=50", "probe_every=0")

    # At the start whether it is empty; evaluations at 0, 50, 100; checkpoints at 0, 100.
    assert len(asked) == 6


def test_updates_follow_the_ratio(tmp_path):
    rows = run(tmp_path / "a", "steps=200", "updates_per_step=0.5", "log_every=200")
    assert rows[-1]["train/updates"] == 100


def test_several_environments_share_one_run(tmp_path):
    rows = run(tmp_path / "a", "steps=200", "num_envs=4", "log_every=200")
    assert rows[-1]["step"] == 200
    assert rows[-1]["train/updates"] == 200


def test_probes_leave_the_run_as_it_is(tmp_path):
    with_probes = run(tmp_path / "a", "steps=220", "probe_every=50", "eval_every=60")
    without = run(tmp_path / "b", "steps=220", "probe_every=0", "eval_every=0")
    measured = [row for row in with_probes if "train/total_loss" in row]
    assert measured == [row for row in without if "train/total_loss" in row]


@pytest.mark.slow
def test_every_probe_at_once_leaves_500_updates_as_they_are_bit_for_bit(tmp_path):
    """All that can be measured on a schedule, on training and held-out data, against nothing."""
    settings = ["optimizer=sam", "steps=550", "checkpoint_every=0", "log_every=550"]
    settings += ["env.task=point-terminating", "agent.config.episodic=true", "heldout_fraction=0.3"]
    names = ("sharpness_full", "rollout_error", "bounds", "open_loop")
    probes = [f"+probe@probes.{name}={name}" for name in names]
    small = ["probes.sharpness_full.batch_size=16", "probes.sharpness_full.iterations=4"]
    often = ["probe_every=270", "eval_every=270", "eval_episodes=2"]
    measured = run(tmp_path / "all", *settings, *probes, *small, *often)
    run(tmp_path / "none", *settings, "probe_every=0", "eval_every=0", "~probes.sharpness")

    assert {
        "probe/sharpness/trace", "probe/sharpness/preconditioned",
        "probe/sharpness/adaptive_sharpness",
        "probe/sharpness/average_case_sharpness", "probe/sharpness/heldout/lambda_max",
        "probe/value/bias_low",
        "probe/sharpness/worst_case_sharpness", "probe/rollout/loss_gap",
        "probe/rollout/value_error_10",
        "probe/bound/value_total", "probe/bound/loss_heldout", "probe/sharpness/gauss_newton",
        "probe/rollout/reference_error_10", "probe/rollout/termination_auc_10",
    } <= {name for row in measured for name in row}  # fmt: skip
    assert measured[-1]["train/updates"] >= 500
    pairs = zip(agent_tensors(tmp_path / "all"), agent_tensors(tmp_path / "none"), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    first = run(tmp_path / "a", "steps=120")
    assert run(tmp_path / "a", "steps=120") == first
