"""Errors of models that are known to be perfect, to copy, or to say the mean."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mbrl_flat.studies.offline.errors import open_loop_errors, summary, value_agreement
from mbrl_flat.studies.offline.offline_model import Predictions
from mbrl_flat.studies.offline.transitions import Transitions

HORIZON = 4


@pytest.fixture
def subsequences():
    rng = np.random.default_rng(0)
    arrays = {
        "obs": rng.normal(size=(8, 21, 3)).astype(np.float32),
        "action": rng.normal(size=(8, 20, 2)).astype(np.float32),
        "reward": rng.normal(size=(8, 20)).astype(np.float32),
    }
    data = Transitions.of(arrays, length=20, discount=0.9)
    return data.every(1, Recalls.context + HORIZON)


class Recalls:
    """Knows the recorded future, moved by an offset."""

    context = 2

    def __init__(self, offset=0.0):
        self.offset = offset

    def predict(self, subsequences, horizon):
        now = self.context - 1
        return Predictions(
            obs=subsequences.obs[:, now : now + horizon + 1] + self.offset,
            reward=subsequences.batch.reward[:, now : now + horizon] + self.offset,
            value=subsequences.returns[:, now : now + horizon + 1] + self.offset,
        )


class Copies(Recalls):
    """Claims that nothing moves, and that rewards and returns are their means."""

    def predict(self, subsequences, horizon):
        true = super().predict(subsequences, horizon)
        return Predictions(
            obs=true.obs[:, :1].expand_as(true.obs),
            reward=true.reward.mean().expand_as(true.reward),
            value=true.value.mean().expand_as(true.value),
        )


def test_a_perfect_model_has_no_error(subsequences):
    curves = open_loop_errors(Recalls(), subsequences, HORIZON)

    for name in ("state", "reward", "value", "bias"):
        assert curves[name] == [0.0] * len(curves[name]), name
    assert summary(curves)["trusted"] == HORIZON
    assert math.isnan(summary(curves)["compounding"])


def test_a_copy_has_the_error_of_the_copy_and_the_mean_an_error_of_one(subsequences):
    curves = open_loop_errors(Copies(), subsequences, HORIZON)
    numbers = summary(curves)

    assert curves["state"] == curves["copy"]
    assert curves["state"][0] == 0.0
    assert numbers["trusted"] == 0.0
    assert len(curves["value"]) == HORIZON + 1
    assert len(curves["reward"]) == HORIZON
    # Independent draws: twice the variance after any step; returns and rewards at their mean.
    np.testing.assert_allclose(curves["copy"][1:], 2.0, rtol=0.15)
    np.testing.assert_allclose(np.mean(curves["reward"]), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.mean(np.square(curves["value"])), 1.0, rtol=1e-5)


def test_an_offset_is_the_bias_in_deviations_of_the_return(subsequences):
    curves = open_loop_errors(Recalls(0.5), subsequences, HORIZON)

    returns = subsequences.returns[:, 1 : HORIZON + 2].double()
    expected = 0.5 / float(returns.std(correction=0))
    np.testing.assert_allclose(curves["bias"], expected, rtol=1e-5)
    np.testing.assert_allclose(curves["value"], expected, rtol=1e-5)


def test_the_score_is_the_mean_share_of_variance_that_is_missed():
    curves = {
        "state": [0.0, 0.2, 0.4],
        "copy": [0.0, 0.3, 0.3],
        "reward": [0.6, 0.8],
        "value": [0.1, 0.5, 0.5],
        "bias": [0.1, 0.0, 0.0],
    }

    numbers = summary(curves)

    np.testing.assert_allclose(numbers["score"], (0.3 + 0.7 + 0.25) / 3.0)
    assert numbers["trusted"] == 1.0
    np.testing.assert_allclose(numbers["compounding"], 2.0)
    torch.testing.assert_close(numbers["value_error_0"], 0.1)


def test_values_that_are_the_returns_up_to_an_offset_agree_with_them():
    returns = torch.tensor([[1.0, 2.0], [3.0, 1.0], [5.0, 0.0]])

    class Shifted:
        context = 1

        def predict(self, subsequences, horizon):
            return SimpleNamespace(value=subsequences.returns[:, : horizon + 1] + 0.5)

    found = value_agreement(Shifted(), SimpleNamespace(returns=returns))

    assert found["value_explained_variance"] == pytest.approx(1.0)
    assert found["value_rank_correlation"] == pytest.approx(1.0)
    assert found["value_relative_rmse"] == pytest.approx(0.5 / 3.0)
