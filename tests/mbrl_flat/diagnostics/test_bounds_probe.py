"""Terms of the bounds beside the gaps that they bound."""

import math

import pytest
import torch

from mbrl_flat.diagnostics.bounds_probe import BoundsProbe
from mbrl_flat.diagnostics.probe import NothingToMeasure
from mbrl_flat.errors import UserError
from mbrl_flat.runtime.seeding import rng_state


def test_terms_add_up_to_their_bounds_and_stand_beside_what_they_bound(linear_agent, filled_replay):
    row = BoundsProbe(horizon=3, batch_size=32)(linear_agent, filled_replay)
    part = {name.removeprefix("probe/bound/"): value for name, value in row.items()}

    loss = part["loss_empirical"] + part["loss_sharpness"] + part["loss_complexity"]
    assert part["loss_total"] == pytest.approx(loss, rel=1e-12)
    assert part["value_total"] == part["value_reward"] + part["value_transition"]
    assert part["performance_total"] == 2.0 * part["value_total"]
    assert all(math.isfinite(value) for value in part.values())
    assert part["loss_sharpness"] > 0.0


def test_one_step_is_within_the_bound_of_the_value_gap(linear_agent, filled_replay):
    """|r - rhat + gamma (V' - Vhat')| <= e_r + gamma Lip e_z for the slope that was seen."""
    row = BoundsProbe(horizon=1, batch_size=64)(linear_agent, filled_replay)

    assert 0.0 < row["probe/bound/value_gap"] <= row["probe/bound/value_total"]


def test_measuring_bounds_moves_nothing(linear_agent, filled_replay):
    before = [p.clone() for p in linear_agent.parameters()]
    state = rng_state()["torch"]

    BoundsProbe(horizon=2, batch_size=8)(linear_agent, filled_replay)

    assert all(torch.equal(a, b) for a, b in zip(before, linear_agent.parameters(), strict=True))
    assert all(p.grad is None for p in linear_agent.parameters())
    assert torch.equal(state, rng_state()["torch"])


def test_bounds_wait_for_episodes(linear_agent, empty_replay):
    with pytest.raises(NothingToMeasure, match=r"held-out episodes.*longer run"):
        BoundsProbe(horizon=2, batch_size=8)(linear_agent, empty_replay)


def test_a_resumed_probe_of_bounds_draws_the_same_subsequences(linear_agent, filled_replay):
    first = BoundsProbe(horizon=2, batch_size=8)
    first(linear_agent, filled_replay)
    resumed = BoundsProbe(horizon=2, batch_size=8, seed=5)
    resumed.load_state_dict(first.state_dict())

    assert resumed(linear_agent, filled_replay) == first(linear_agent, filled_replay)


@pytest.mark.parametrize("wrong", [{"rho": 0.0}, {"horizon": 0}, {"batch_size": 1}, {"delta": 1.0}])
def test_settings_of_the_bounds_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must"):
        BoundsProbe(**wrong)
