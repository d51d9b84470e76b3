"""Retained return and its area, in closed form."""

from types import SimpleNamespace

import numpy as np
import pytest

from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.probe import NothingToMeasure
from mbrl_flat.diagnostics.robustness_probe import (
    EnvPerturbation,
    RobustnessProbe,
    areas,
    observation_scale,
)
from mbrl_flat.errors import UserError


def run_with(returns_at, replay=None):
    """A run whose returns depend on the strength alone."""

    def play(mode, *, wrap=None):
        strength = 0.0 if wrap is None else wrap(None)
        return [SimpleNamespace(undiscounted_return=value) for value in returns_at(mode, strength)]

    return SimpleNamespace(play=play, replay=replay)


def strength_alone(env, strength, **rest):
    return strength


def test_a_linear_loss_has_the_area_of_a_trapezoid():
    """From 100 to 50 over strengths 0 to 1: three quarters, of either episode."""
    probe = RobustnessProbe(
        perturbations={"noise": EnvPerturbation(wrapper=strength_alone, strengths=[0.5, 1.0])}
    )

    row = probe.measure_run(run_with(lambda mode, s: [95.0 - 50.0 * s, 105.0 - 50.0 * s]))

    assert row["probe/robustness/clean_return"] == 100.0
    assert row["probe/robustness/noise_return_0.5"] == 75.0
    assert row["probe/robustness/noise_auc"] == pytest.approx(0.75)
    assert row["probe/robustness/noise_auc_low"] == pytest.approx(0.75)


def test_costs_lose_as_rewards_do():
    """From -100 to -150: half the size of the clean return is lost, as from 100 to 50."""
    loss = areas(np.array([-100.0]), np.array([[-150.0]]), [1.0])
    reward = areas(np.array([100.0]), np.array([[50.0]]), [1.0])

    assert loss == pytest.approx(0.75)
    assert reward == pytest.approx(0.75)
    assert areas(np.zeros(2), np.ones((1, 2)), [1.0]) is None


def test_strengths_are_weighed_by_their_distance():
    found = areas(np.array([1.0]), np.array([[1.0], [0.0]]), [3.0, 4.0])

    assert found == pytest.approx((3.0 + 0.5) / 4.0)


def test_what_an_environment_does_not_allow_is_left_out():
    def refused(env, strength):
        raise UserError("no mass")

    allowed = EnvPerturbation(wrapper=strength_alone, strengths=[1.0])
    perturbations = {"mass": EnvPerturbation(wrapper=refused, strengths=[1.0]), "noise": allowed}
    run = run_with(lambda mode, s: [1.0, 1.0])

    row = RobustnessProbe(perturbations=perturbations).measure_run(run)

    assert row["probe/robustness/noise_auc"] == 1.0
    assert not any("mass" in name for name in row)
    with pytest.raises(NothingToMeasure, match="no perturbation: no mass"):
        RobustnessProbe(perturbations={"mass": perturbations["mass"]}).measure_run(run)


def test_noise_on_observations_gets_the_spread_of_recorded_ones(filled_replay):
    found = observation_scale(filled_replay)

    held = filled_replay.arrays["episode"] >= 0
    np.testing.assert_array_equal(found["state"], filled_replay.arrays["obs/state"][held].std(0))
    assert isinstance(filled_replay, Replay)


@pytest.mark.parametrize("strengths", [[], [0.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
def test_strengths_that_do_not_increase_are_refused(strengths):
    with pytest.raises(UserError, match="Strengths must increase from above 0"):
        EnvPerturbation(wrapper=strength_alone, strengths=strengths)
