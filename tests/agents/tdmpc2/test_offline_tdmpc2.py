"""TD-MPC2's world model on recorded transitions."""

import numpy as np
import pytest
import torch

from mbrl_flat.agents.tdmpc2.offline import OfflineTDMPC2
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.studies.offline.transitions import Transitions

SPEC = EnvSpec(obs={"state": (5,)}, action=Continuous(dim=2), episode_length=30)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    arrays = {
        "obs": rng.normal(size=(4, 31, 5)).astype(np.float32),
        "action": rng.normal(size=(4, 30, 2)).clip(-1, 1).astype(np.float32),
        "reward": rng.normal(size=(4, 30)).astype(np.float32),
    }
    return Transitions.of(arrays, length=30, discount=0.95)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = OfflineTDMPC2(SPEC, size="debug", batch_size=8).eval()
    for head in (made.model.reward, made.model.q):
        for p in head.parameters():
            torch.nn.init.normal_(p, std=0.1)
    return made


def test_the_loss_is_the_agents_with_returns_as_value_targets(model, data):
    subsequences = data.draw(8, 3, rng=np.random.default_rng(0))
    targets = model.targets(subsequences)

    expected = model.model.loss(subsequences.batch, targets)

    torch.testing.assert_close(model.loss(subsequences, targets), expected.loss)
    lower, share = model.model.two_hot.position(subsequences.returns)
    assert torch.equal(targets["q_lower"], lower)
    assert torch.equal(targets["q_share"], share)
    torch.testing.assert_close(
        targets["next_latent"], model.model.encode({"state": subsequences.obs[:, 1:]})
    )
    assert not targets["next_latent"].requires_grad


def test_only_the_first_observation_and_the_actions_reach_a_prediction(model, data):
    model.calibrate(data.every(1, 1))
    subsequences = data.draw(8, 5, rng=np.random.default_rng(0))
    first = model.predict(subsequences, 4)

    subsequences.obs[:, 1:] = 7.0
    subsequences.batch.reward[:] = 7.0
    second = model.predict(subsequences, 4)

    assert first.obs.shape == (8, 5, 5)
    assert first.reward.shape == (8, 4)
    assert first.value.shape == (8, 5)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


def test_predictions_are_those_of_the_dynamics_step_by_step(model, data):
    model.calibrate(data.every(1, 1))
    subsequences = data.draw(8, 3, rng=np.random.default_rng(0))
    ahead = model.predict(subsequences, 2)

    world, action = model.model, subsequences.batch.action
    latent = world.encode({"state": subsequences.obs[:, 0]})
    for step in range(2):
        pair = torch.cat([latent, action[:, step]], -1)
        torch.testing.assert_close(ahead.obs[:, step], model.readout(latent))
        torch.testing.assert_close(ahead.reward[:, step], world.two_hot.decode(world.reward(pair)))
        latent = world.dynamics(pair)
    value = world.q_values(latent, action[:, 2], None).mean(0)
    torch.testing.assert_close(ahead.value[:, 2], value)


def test_the_encoder_learns_at_its_own_rate(model):
    assert model.lr_scales == {"encoder": 0.3}
    assert model.max_grad_norm == 20.0
    assert set(model.trained_modules()) == {"encoder", "dynamics", "reward", "q"}
