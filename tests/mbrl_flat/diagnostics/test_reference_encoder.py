"""The frozen encoder: the same function everywhere, and errors that no latent space can bend."""

import pytest
import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.diagnostics.reference_encoder import ReferenceEncoder
from mbrl_flat.diagnostics.rollout_error import (
    Reference,
    fit_readout,
    fit_tuned_readout,
    rollout_errors,
)
from mbrl_flat.interfaces import Prediction
from mbrl_flat.runtime.seeding import rng_state


def images(size, channels=3, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(1)
    shape = (4, 3, channels, size, size)
    return torch.randint(256, shape, generator=generator, dtype=dtype)


def vectors(size=5):
    return torch.randn(4, 3, size, generator=torch.Generator().manual_seed(2))


def test_it_is_the_same_function_at_every_call_and_draws_from_no_stream():
    obs = {"image": images(16), "state": vectors()}
    before = rng_state()["torch"].clone()
    first = ReferenceEncoder()(obs)
    torch.manual_seed(99)
    stream = torch.get_rng_state()

    again = ReferenceEncoder()(obs)

    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), stream)
    torch.set_rng_state(before)
    ReferenceEncoder()(obs)
    assert torch.equal(rng_state()["torch"], before)
    assert not torch.equal(ReferenceEncoder(seed=1)(obs), first)


def test_features_of_an_entry_do_not_depend_on_its_neighbours():
    encoder = ReferenceEncoder(features=8)
    image, state = images(16), vectors()
    task = torch.ones(4, 3, 1)

    both = encoder({"image": image, "state": state, "task": task})

    assert both.shape == (4, 3, 16)
    assert torch.equal(both[..., :8], encoder({"image": image}))
    assert torch.equal(both[..., 8:], encoder({"state": state}))


def test_a_row_is_encoded_by_itself():
    encoder, image = ReferenceEncoder(), images(16)

    whole = encoder({"image": image})

    torch.testing.assert_close(whole[1:2, 2:], encoder({"image": image[1:2, 2:]}))


def test_bytes_are_images_in_the_unit_range():
    image = images(16)

    torch.testing.assert_close(
        ReferenceEncoder()({"image": image}), ReferenceEncoder()({"image": image.float() / 255.0})
    )


@pytest.mark.parametrize(("size", "channels"), [(4, 1), (10, 4), (64, 3), (84, 9)])
def test_images_of_every_size_have_features_that_differ(size, channels):
    found = ReferenceEncoder()({"image": images(size, channels)})

    assert found.shape == (4, 3, 64)
    assert bool(torch.isfinite(found).all())
    assert float(found.flatten(0, 1).std(0).min()) > 0.0


def test_a_thousand_times_the_scale_of_one_entry_does_not_drown_the_others():
    """Through symlog: what the other entries say stays a fair share of the features."""
    fast = vectors()
    fast[..., 0] *= 1000.0
    still = fast.clone()
    still[..., 0] = fast[..., 0].mean()

    spread = [
        float(ReferenceEncoder()({"state": x}).flatten(0, 1).var(0).sum()) for x in (fast, still)
    ]

    assert spread[1] > 0.02 * spread[0]
    assert still.flatten(0, 1).var(0).sum() < 1e-4 * fast.flatten(0, 1).var(0).sum()


class Rotating:
    """Turns the state at every step; its latents are the state as ``space`` has it."""

    discount = 0.9

    def __init__(self, space, angle):
        turn = torch.tensor(angle, dtype=torch.float64)
        rows = [[turn.cos(), -turn.sin()], [turn.sin(), turn.cos()]]
        self.space, self.step = space, torch.tensor(rows, dtype=torch.float64)

    def posterior(self, batch):
        return batch.obs["state"] @ self.space

    def predict(self, latent, action):
        state = latent @ torch.linalg.pinv(self.space)
        reward = torch.zeros_like(latent[:, 0])
        return Prediction(state @ self.step @ self.space, reward, torch.ones_like(reward))

    def value(self, latent):
        return latent[:, 0]

    def probe_loss(self, batch):
        raise NotImplementedError


def turning(angle, steps=4, num=300):
    truth = Rotating(torch.eye(2, dtype=torch.float64), angle)
    states = [torch.randn(num, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))]
    for _ in range(steps):
        states.append(states[-1] @ truth.step)
    return Batch(
        obs={"state": torch.stack(states, 1)},
        action=torch.zeros(num, steps, 1, dtype=torch.float64),
        reward=torch.zeros(num, steps, dtype=torch.float64),
        terminated=torch.zeros(num, steps, dtype=torch.float64),
    )


def reference_row(agent, batch):
    encoder = ReferenceEncoder()
    latent, truth = agent.posterior(batch).flatten(0, 1), encoder(batch.obs).flatten(0, 1)
    reference = Reference(encoder, fit_readout(latent, truth, ridge=1e-12))
    return rollout_errors(agent, batch, reference=reference)


def test_errors_are_the_same_in_every_latent_space_of_the_same_model():
    """Latents stretched a hundredfold along one axis: their own errors change, these do not."""
    batch = turning(0.5)
    stretch = torch.tensor([[1.0, 0.3], [0.0, 100.0]], dtype=torch.float64)

    plain, bent = (
        reference_row(Rotating(space, 0.8), batch)
        for space in (torch.eye(2, dtype=torch.float64), stretch)
    )

    for k in range(1, 5):
        assert bent[f"reference_error_{k}"] == pytest.approx(
            plain[f"reference_error_{k}"], rel=1e-6
        )
    assert abs(bent["latent_error_4"] / plain["latent_error_4"] - 1.0) > 0.02


def test_a_perfect_model_errs_by_what_the_read_out_misses_and_a_wrong_one_by_more():
    batch = turning(0.5)
    identity = torch.eye(2, dtype=torch.float64)

    right, wrong = (reference_row(Rotating(identity, angle), batch) for angle in (0.5, 0.9))

    # The read-out is a least-squares fit, so its residual is known up to one step's sampling.
    for k in range(5):
        assert right[f"reference_error_{k}"] == pytest.approx(right["reference_error_0"], rel=0.2)
    assert wrong["reference_error_4"] > 3.0 * right["reference_error_4"]
    assert "reference_copy_0" not in right
    assert right["reference_copy_1"] < right["reference_copy_4"]


def test_the_copy_baseline_is_that_of_features_whatever_the_model():
    batch = turning(0.5)
    features = ReferenceEncoder()(batch.obs).double()
    flat = features.flatten(0, 1)
    spread = (flat - flat.mean(0)).square().sum(-1).mean()

    row = reference_row(Rotating(torch.eye(2, dtype=torch.float64), 0.9), batch)

    for k in range(1, 5):
        moved = (features[:, k] - features[:, 0]).square().sum(-1).mean()
        assert row[f"reference_copy_{k}"] == pytest.approx(float(moved / spread), rel=1e-5)


def test_with_more_latents_than_data_the_tuned_read_out_does_not_fit_noise():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(40, 3, 130, dtype=torch.float64, generator=generator)
    target = torch.randn(40, 3, 4, dtype=torch.float64, generator=generator)
    fresh = torch.randn(200, 130, dtype=torch.float64, generator=generator)

    tuned = fit_tuned_readout(latent, target)
    plain = fit_readout(latent.flatten(0, 1), target.flatten(0, 1))

    # Nothing can be said of fresh targets but their mean; what is said on top is error.
    assert float(tuned(fresh).var(0).mean()) < 0.7
    assert float(plain(fresh).var(0).mean()) > 2.0 * float(tuned(fresh).var(0).mean())


def test_the_tuned_read_out_recovers_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(20, 3, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(6, 2, dtype=torch.float64, generator=generator)

    found = fit_tuned_readout(latent, latent @ weight + 1.0)

    torch.testing.assert_close(found(latent), latent @ weight + 1.0, rtol=1e-4, atol=1e-4)
