"""The minimal example's study: its small preset, and what the claims make of it."""

from dataclasses import replace

import pytest

from mbrl_flat.cli.main import compose_study
from mbrl_flat.studies.experiments.eos_minimal import random_setting
from mbrl_flat.studies.framework import run_study


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    small = {"lrs": (2.5, 5.0), "sweep_steps": 2000, "starts": 6, "start_steps": 4000}
    study = replace(compose_study("experiment=eos_minimal"), **small)
    return study, run_study(study, tmp_path_factory.mktemp("study"), command="test")


def test_the_hovering_run_crosses_the_edge_at_least_eight_times_and_ends_there(outcome):
    study, found = outcome
    (row,) = found.rows.where(kind="followed", setting="hovering")

    assert row["crossings"] >= 8
    assert abs(row["final"] - 1.0) < 0.01
    assert {claim.name: claim.verdict for claim in study.claims(found.rows)}["M1"] == "supported"


def test_the_single_burst_ends_where_it_is_known_to(outcome):
    _, found = outcome
    (row,) = found.rows.where(kind="followed", setting="one_burst")

    assert abs(row["final"] - 0.975) < 0.005
    assert abs(row["solution_at_start"] - 1.25) < 0.005


def test_a_step_size_that_diverges_is_reported_with_its_step(outcome):
    _, found = outcome
    (row,) = found.rows.where(kind="sweep", lr=5.0)

    assert row.diverged
    assert 1 <= row["diverged_at_step"] <= 2000


def test_the_flow_and_descent_are_drawn_from_the_same_start(outcome):
    _, found = outcome
    for row in found.rows.where(kind="followed"):
        assert row["flow_alpha"][0] == row["alpha"][0]
        # The flow ends on the hyperbola of minima, above the edge that descent stays at.
        assert row["flow_alpha"][-1] > row["edge_alpha"]


def test_random_settings_follow_from_their_seed():
    assert random_setting(3, steps=10) == random_setting(3, steps=10)
    for setting in (random_setting(seed, steps=10) for seed in range(50)):
        edge = (2.0 / setting.lr) ** 0.5
        assert 1.5 <= setting.lr <= 3.0
        assert 0.75 * edge <= setting.start[0] <= 0.98 * edge
        assert 0.0 <= setting.start[0] * setting.start[2] <= 1.0
