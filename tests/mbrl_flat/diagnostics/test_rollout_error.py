"""Open-loop errors of systems for which they are known."""

import copy
import math

import numpy as np
import pytest
import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.diagnostics.probe import NothingToMeasure
from mbrl_flat.diagnostics.rollout_error import (
    compounding,
    fit_readout,
    open_loop,
    rollout_errors,
    vector_observations,
)
from mbrl_flat.diagnostics.rollout_probe import RolloutProbe
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Prediction
from mbrl_flat.runtime.seeding import rng_state


class Scaling:
    """Latents are states; each step multiplies them, and the model's factor may be off."""

    discount = 0.9

    def __init__(self, factor, reward_offset=0.0):
        self.factor, self.reward_offset = factor, reward_offset

    def posterior(self, batch):
        return batch.obs["state"]

    def predict(self, latent, action):
        reward = latent[:, 0] + action[:, 0] + self.reward_offset
        return Prediction(self.factor * latent, reward, torch.full_like(reward, 0.75))

    def value(self, latent):
        return latent.sum(-1)

    def probe_loss(self, batch):
        raise NotImplementedError


def powers(factor, steps, batch=6):
    """States ``s, f s, f^2 s, ...`` with the reward that ``Scaling`` predicts."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(batch, 2, dtype=torch.float64, generator=generator)
    state = torch.stack([start * factor**k for k in range(steps + 1)], 1)
    action = torch.randn(batch, steps, 1, dtype=torch.float64, generator=generator)
    return Batch(
        obs={"state": state},
        action=action,
        reward=state[:, :-1, 0] + action[:, :, 0],
        terminated=torch.zeros(batch, steps, dtype=torch.float64),
    )


def test_a_perfect_model_has_no_error_at_any_step():
    row = rollout_errors(Scaling(0.8), powers(0.8, 5))

    for k in range(1, 6):
        for name in ("latent_error", "reward_error", "value_error"):
            assert row[f"{name}_{k}"] == pytest.approx(0.0, abs=1e-12)
        assert row[f"termination_error_{k}"] == pytest.approx(0.25, abs=1e-12)
        assert row[f"copy_baseline_{k}"] > 0.0


def test_errors_of_a_wrong_factor_are_its_powers():
    """|m^k - f^k|^2 E|s|^2 over the variance, |m^k - f^k| E|s_1 + s_2|, and the reward's lag."""
    batch = powers(0.8, 4)
    state = batch.obs["state"]
    start = state[:, 0]
    flat = state.flatten(0, 1)
    variance = float((flat - flat.mean(0)).square().sum(-1).mean())
    size = float(start.square().sum(-1).mean())

    row = rollout_errors(Scaling(1.1, reward_offset=0.0), batch)

    for k in range(1, 5):
        gap = abs(1.1**k - 0.8**k)
        lag = abs(1.1 ** (k - 1) - 0.8 ** (k - 1))
        assert row[f"latent_error_{k}"] == pytest.approx(gap**2 * size / variance, rel=1e-10)
        assert row[f"copy_baseline_{k}"] == pytest.approx(
            (1.0 - 0.8**k) ** 2 * size / variance, rel=1e-10
        )
        assert row[f"value_error_{k}"] == pytest.approx(
            gap * float(start.sum(-1).abs().mean()), rel=1e-10
        )
        assert row[f"reward_error_{k}"] == pytest.approx(
            lag * float(start[:, 0].abs().mean()), rel=1e-10, abs=1e-12
        )


def test_a_model_that_never_moves_is_the_copy_baseline():
    row = rollout_errors(Scaling(1.0), powers(0.7, 3))

    for k in range(1, 4):
        assert row[f"latent_error_{k}"] == pytest.approx(row[f"copy_baseline_{k}"], rel=1e-12)


def test_the_first_open_loop_step_sees_the_first_action():
    batch = powers(0.8, 2)

    latent, reward, cont = open_loop(Scaling(0.8), batch.obs["state"][:, 0], batch.action)

    torch.testing.assert_close(latent, batch.obs["state"][:, 1:])
    torch.testing.assert_close(reward, batch.reward)
    assert cont.shape == (6, 2)


def test_without_spread_there_are_no_shares_of_it():
    batch = powers(0.8, 2)
    still = Batch(
        obs={"state": torch.zeros_like(batch.obs["state"])},
        action=batch.action,
        reward=batch.reward,
        terminated=batch.terminated,
    )

    names = set(rollout_errors(Scaling(0.8), still))

    assert not any(name.startswith(("latent", "copy", "state")) for name in names)


def test_the_readout_recovers_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 3, dtype=torch.float64, generator=generator)

    readout = fit_readout(latent, latent @ weight + 2.0, ridge=1e-12)

    torch.testing.assert_close(readout(latent), latent @ weight + 2.0, rtol=1e-8, atol=1e-8)


class Shrinking(Scaling):
    """Like ``Scaling``, but its latents hold next to nothing: a tiny share of the state."""

    def posterior(self, batch):
        noise = torch.randn(
            batch.obs["state"].shape,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(1),
        )
        return 1e-3 * torch.ones_like(noise) + 1e-9 * noise


def test_an_encoder_that_forgets_the_state_is_found_out_by_the_readout():
    batch = powers(0.8, 3)
    state = vector_observations(batch)
    honest, forgetful = Scaling(0.8), Shrinking(1.0)

    rows = []
    for agent in (honest, forgetful):
        readout = fit_readout(agent.posterior(batch).flatten(0, 1), state.flatten(0, 1))
        rows.append(rollout_errors(agent, batch, readout=readout))

    errors = [[row[f"state_error_{k}"] for k in range(4)] for row in rows]
    assert max(errors[0]) == pytest.approx(0.0, abs=1e-8)
    # Its best guess is the mean state, whose error over all steps is the variance.
    assert sum(errors[1]) / 4.0 == pytest.approx(1.0, abs=0.3)


class Remembering(Scaling):
    """Like ``Scaling``, with a memory in its latents that is far larger than the state."""

    def posterior(self, batch):
        memory = 1e3 * batch.obs["state"][:, :1].expand_as(batch.obs["state"])
        return torch.cat([batch.obs["state"], memory], -1)

    def predict(self, latent, action):
        after, reward, cont = super().predict(latent[:, :2], action)
        return Prediction(torch.cat([after, latent[:, 2:]], -1), reward, cont)

    def value(self, latent):
        return self.features(latent).sum(-1)

    def features(self, latent):
        return latent[..., :2]


def test_memory_within_latents_is_neither_an_error_nor_a_variance():
    batch = powers(0.8, 3)

    assert rollout_errors(Remembering(1.1), batch) == rollout_errors(Scaling(1.1), batch)


def test_growth_is_the_slope_of_the_logarithm_and_trust_ends_at_the_baseline():
    errors = {f"latent_error_{k}": 0.01 * 3.0**k for k in range(1, 6)}
    baseline = {f"copy_baseline_{k}": 1.0 for k in range(1, 6)}

    found = compounding(errors | baseline)

    assert found["growth"] == pytest.approx(math.log(3.0), rel=1e-12)
    assert found["trusted_horizon"] == 4.0
    assert compounding({"latent_error_1": 0.0, "copy_baseline_1": 1.0}) == {}


def test_images_have_no_vector_observations():
    batch = powers(0.8, 2)
    images = Batch(
        obs={"image": torch.zeros(6, 3, 3, 8, 8)},
        action=batch.action,
        reward=batch.reward,
        terminated=batch.terminated,
    )

    assert vector_observations(images) is None


def test_the_probe_has_the_names_of_the_interface_and_moves_nothing(linear_agent, filled_replay):
    before = [p.clone() for p in linear_agent.parameters()]
    state, replay_state = rng_state(), copy.deepcopy(filled_replay.state_dict())

    row = RolloutProbe(batch_size=16)(linear_agent, filled_replay)

    for k in range(1, 11):
        for name in (
            "latent_error",
            "reward_error",
            "value_error",
            "copy_baseline",
            "state_error",
            "reference_error",
            "reference_copy",
        ):
            assert math.isfinite(row[f"probe/rollout/{name}_{k}"])
    gap = row["probe/rollout/loss_heldout"] - row["probe/rollout/loss_train"]
    assert row["probe/rollout/loss_gap"] == gap
    assert all(torch.equal(a, b) for a, b in zip(before, linear_agent.parameters(), strict=True))
    assert torch.equal(state["torch"], rng_state()["torch"])
    assert replay_state == filled_replay.state_dict()


def test_a_resumed_rollout_probe_draws_the_same_subsequences(linear_agent, filled_replay):
    probe = RolloutProbe(batch_size=16, horizon=2)
    probe(linear_agent, filled_replay)
    resumed = RolloutProbe(batch_size=16, horizon=2, seed=9)
    resumed.load_state_dict(copy.deepcopy(probe.state_dict()))

    assert resumed(linear_agent, filled_replay) == probe(linear_agent, filled_replay)


def test_the_rollout_probe_waits_for_episodes(linear_agent, empty_replay, filled_replay):
    with pytest.raises(NothingToMeasure, match="no 100 transitions in a row in episodes"):
        RolloutProbe(horizon=100)(linear_agent, filled_replay)
    row = RolloutProbe(horizon=3, heldout=False)(linear_agent, filled_replay)
    assert "probe/rollout/latent_error_3" in row
    assert "probe/rollout/loss_gap" not in row


@pytest.mark.parametrize(("setting", "value"), [("horizon", 0), ("batch_size", 1)])
def test_rollout_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(UserError, match=f"{setting} must be at least .*, got {value}"):
        RolloutProbe(**{setting: value})


def test_slices_are_drawn_from_the_probes_own_stream(linear_agent, filled_replay):
    np.random.seed(0)  # noqa: NPY002
    first = RolloutProbe(batch_size=4, horizon=2)(linear_agent, filled_replay)
    torch.manual_seed(5)

    assert RolloutProbe(batch_size=4, horizon=2)(linear_agent, filled_replay) == first
