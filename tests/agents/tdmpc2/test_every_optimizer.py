"""TD-MPC2 under every optimizer of the registry: the policy sees the unperturbed model."""

from dataclasses import replace

import pytest
import torch

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.batch import Batch
from mbrl_flat.optim import OPTIMIZERS, make_optimizer


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return Batch(
        obs={"state": torch.randn(8, 4, 3, generator=generator)},
        action=torch.rand(8, 3, 2, generator=generator) * 2 - 1,
        reward=torch.rand(8, 3, generator=generator),
        terminated=torch.zeros(8, 3),
    )


def make(spec, name):
    torch.manual_seed(0)

    def factory(groups, *, max_grad_norm=None):
        return make_optimizer(name, groups, lr=1e-3, max_grad_norm=max_grad_norm)

    config = replace(TDMPC2Config(), size="debug", batch_size=8)
    return TDMPC2(spec, config=config, optimizer=factory, device=torch.device("cpu"))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_policy_learns_on_latents_of_the_unperturbed_model(name, spec, batch, monkeypatch):
    agent = make(spec, name)
    assert agent.optimizer.clean_first == OPTIMIZERS[name].clean_first
    seen = []
    monkeypatch.setattr(agent, "_update_policy", lambda latents: seen.append(latents) or {})
    for _ in range(3):
        clean = agent._rollout(batch)
        metrics = agent.update(batch)
        torch.testing.assert_close(seen[-1], clean, rtol=1e-6, atol=1e-7)
    assert torch.isfinite(metrics["train/total_loss"])
    assert metrics["optim/evaluations"] >= 1
