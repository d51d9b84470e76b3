"""A small agent of which everything is known, and a replay for it."""

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_flat.data.replay import Replay
from mbrl_flat.interfaces import Prediction, ProbeLoss
from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=12)


class LinearAgent:
    """Latents are observations; dynamics, reward and value are linear, and the loss is noisy."""

    discount = 0.9
    sequence_length = 3

    def __init__(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        self.dynamics = nn.Linear(5, 3).to(dtype)
        self.reward = nn.Linear(5, 1).to(dtype)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype))

    def parameters(self):
        return [*self.dynamics.parameters(), *self.reward.parameters()]

    def probe_loss(self, batch):
        dtype = self.dynamics.weight.dtype
        obs, action = batch.obs["state"].to(dtype), batch.action.to(dtype)
        pair = torch.cat([obs[:, :-1], action], -1)
        target = obs[:, 1:] + 0.1 * torch.randn(obs[:, 1:].shape, dtype=dtype)

        def loss():
            error = (self.dynamics(pair) - target).square().mean()
            return error + (self.reward(pair)[..., 0] - batch.reward).square().mean()

        modules = {
            "dynamics": list(self.dynamics.parameters()),
            "reward": list(self.reward.parameters()),
        }
        return ProbeLoss(loss, modules)

    def posterior(self, batch):
        return batch.obs["state"].to(self.dynamics.weight.dtype)

    @torch.no_grad()
    def predict(self, latent, action):
        pair = torch.cat([latent, action.to(latent)], -1)
        return Prediction(
            self.dynamics(pair), self.reward(pair)[:, 0], torch.ones_like(latent[:, 0])
        )

    def value(self, latent):
        return latent.sum(-1)


def fill(replay, episodes, length, *, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(episodes):
        replay.begin(0, {"state": rng.normal(size=3).astype(np.float32)})
        for t in range(length):
            replay.add(
                0,
                rng.uniform(-1, 1, 2).astype(np.float32),
                float(rng.normal()),
                {"state": rng.normal(size=3).astype(np.float32)},
                terminated=False,
                done=t == length - 1,
            )


@pytest.fixture
def linear_agent():
    return LinearAgent()


@pytest.fixture
def empty_replay():
    return Replay(SPEC, 500, heldout_fraction=0.3, seed=0)


@pytest.fixture
def filled_replay(empty_replay):
    fill(empty_replay, 12, 12)
    assert empty_replay.can_sample(3, heldout=True)
    return empty_replay
