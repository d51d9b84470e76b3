"""The study of forgetting in a diffusion model: its parts, its claims, and all of it in small."""

import csv
import math

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError
from mbrl_flat.studies.experiments.hopfield_diffusion import HopfieldDiffusion, partial_spearman
from mbrl_flat.studies.experiments.hopfield_diffusion_report import (
    diffusion_claims,
    own_gains,
)
from mbrl_flat.studies.framework import TrialRow, TrialRows
from mbrl_flat.studies.hopfield.continual import Stage

TINY = HopfieldDiffusion(
    first=Stage(steps=2, batch_size=8),
    second=Stage(steps=2, batch_size=8),
    policies=("none", "top_energy"),
    width=8,
    times=(0.2,),
    draws=1,
    sampler_steps=2,
    seeds=1,
)


@pytest.fixture(scope="module")
def rows():
    measured = [{**cell, **TINY.measure(cell)} for cell in TINY.cells(TrialRows())]
    return TrialRows([TrialRow(entries) for entries in measured])


def test_policies_keep_what_they_say_at_equal_budget(rows):
    none, top = rows
    energy = np.array(top["energy_curve"])

    assert none["replayed_curve"] == []
    assert len(top["replayed_curve"]) == round(0.05 * len(energy))
    assert set(top["replayed_curve"]) == set(np.argsort(-energy)[: len(top["replayed_curve"])])
    assert none["second_loss_before"] == top["second_loss_before"]
    assert none["error_before"] == top["error_before"]


def test_a_cell_follows_from_its_settings(rows):
    again = TINY.measure(TINY.cells(TrialRows())[1])

    assert {name: rows[1][name] for name in again} == again


def test_images_with_shuffled_pixels_have_the_highest_energies():
    start = TINY.first_task(0)

    highest = start.energy[1].argsort(descending=True)[: len(start.outliers)]

    assert set(highest.tolist()) == set(start.outliers.tolist())
    assert start.before.shape == (1, len(start.images))


def test_partial_correlation_takes_out_what_both_follow():
    rng = np.random.default_rng(0)
    given = rng.normal(size=5000)
    x, y = given + rng.normal(size=5000), given + rng.normal(size=5000)

    assert abs(partial_spearman(x, y, given)) < 0.05
    assert partial_spearman(x, x, given) == pytest.approx(1.0)
    assert math.isnan(partial_spearman(given, y, given))


def row(policy, seed, forgetting, kept):
    return TrialRow(
        policy=policy, seed=seed, forgetting_curve=forgetting, replayed_curve=kept,
        energy_curve=[0.0, 1.0], forgetting=float(np.mean(forgetting)),
    )  # fmt: skip


def test_gains_are_those_of_the_replayed_images_seed_by_seed():
    both = row("none", 0, [1.0, 4.0], []), row("top_energy", 0, [1.0, 1.0], [1])
    rows = TrialRows([*both, row("top_energy", 1, [0.0, 0.0], [1])])

    assert own_gains(rows, "top_energy") == {0: 3.0}
    assert own_gains(rows, "bottom_energy") == {}


def test_a_policy_that_forgets_less_on_every_seed_holds():
    rows = TrialRows(
        [row("none", seed, [1.0, 4.0 + 0.01 * seed], []) for seed in range(5)]
        + [row("random", seed, [1.0, 2.0], [1]) for seed in range(5)]
    )

    verdicts = {(c.name, c.statement): c.verdict for c in diffusion_claims(rows)}

    assert verdicts["D5", "random replay forgets less than none"] == "supported"
    assert {claim.verdict for claim in diffusion_claims(TrialRows())} == {"not tested"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ["rndom"]}, "'random'"),
        ({"budget": 0.0}, r"budget must lie in \(0, 1\), got 0.0"),
        ({"times": []}, "times must hold a number within"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        HopfieldDiffusion(**changes)


@pytest.mark.slow
def test_the_small_study_runs_from_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    argv = ["mbrl-flat-supervised", "experiment=hopfield_diffusion", "preset=ci", "run_dir=here"]
    monkeypatch.setattr("sys.argv", argv)
    cli.supervised()

    table = list(csv.DictReader((tmp_path / "here" / "results.csv").read_text().splitlines()))
    claims = list(csv.DictReader((tmp_path / "here" / "claims.csv").read_text().splitlines()))
    assert [row["policy"] for row in table] == ["none", "top_energy", "bottom_energy"]
    assert {claim["claim"] for claim in claims} >= {"D1", "D2", "D3", "D4", "D5", "D8"}
    assert (tmp_path / "here" / "plots" / "forgetting.png").is_file()
