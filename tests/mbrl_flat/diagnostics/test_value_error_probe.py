"""Estimates of the critic in place of those of the actor."""

import torch

from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.value_error_probe import with_critic


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
