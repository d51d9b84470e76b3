"""Estimates of the critic, the planner and both mixed; intervals over episodes."""

import math

import numpy as np
import pytest
import torch

from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.value_estimates import bias_interval, mixed_metrics, with_critic


def episode(length, offset=0.0, seed=0):
    state = torch.randn(length + 1, 3, generator=torch.Generator().manual_seed(seed)).double()
    return Episode(
        obs={"state": state},
        action=torch.zeros(length, 2),
        reward=torch.zeros(length, dtype=torch.float64),
        terminated=True,
        value=torch.full((length,), offset, dtype=torch.float64),
    )


def test_the_critic_is_asked_at_every_observation_but_the_last(linear_agent):
    recorded = episode(5)

    judged = with_critic(linear_agent, recorded)

    torch.testing.assert_close(judged.value, recorded.obs["state"][:-1].sum(-1))
    assert judged.reward is recorded.reward


def test_mixed_estimates_have_a_name_of_their_own(linear_agent):
    recorded = episode(5)

    row = mixed_metrics(linear_agent, [recorded])

    assert row["probe/mixed/bias"] == pytest.approx(
        float(recorded.obs["state"][:-1].sum(-1).mean()), rel=1e-6
    )
    assert mixed_metrics(linear_agent, []) == {}


def test_the_interval_is_over_episodes_not_steps():
    """All steps of an episode err alike: ten episodes are ten draws, however long they are."""
    offsets = np.random.default_rng(0).normal(size=10)
    intervals = [
        bias_interval(
            [episode(length, float(offset)) for offset in offsets],
            0.9,
            rng=np.random.default_rng(1),
        )
        for length in (2, 200)
    ]

    for found in intervals:
        assert found.point == pytest.approx(float(offsets.mean()), abs=1e-12)
        half = (found.high - found.low) / 2.0
        assert half == pytest.approx(1.96 * offsets.std() / math.sqrt(10), rel=0.15)


def test_long_episodes_weigh_more_as_they_do_in_the_bias():
    found = bias_interval([episode(1, 4.0), episode(3, 0.0)], 0.9, rng=np.random.default_rng(0))

    assert found.point == pytest.approx(1.0, abs=1e-12)
    assert (found.low, found.high) == (0.0, 4.0)


def test_too_few_episodes_have_no_interval():
    rng = np.random.default_rng(0)

    none, one = bias_interval([], 0.9, rng=rng), bias_interval([episode(4, 1.0)], 0.9, rng=rng)

    assert math.isnan(none.point)
    assert one.point == 1.0
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_a_confidence_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"confidence must lie within \(0, 1\), got 1"):
        bias_interval([], 0.9, rng=np.random.default_rng(0), confidence=1.0)
