"""A plan in one call against the same search in torch, which float64 goes through."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from mbrl_flat.agents.tdmpc2 import fused_plan
from mbrl_flat.agents.tdmpc2.planner import LatentPlanner
from mbrl_flat.planning.mppi import MPPIConfig

SMALL = {"num_samples": 32, "num_elites": 8, "iterations": 3}


pytestmark = pytest.mark.usefixtures("one_thread")


def as_type(noise, dtype):
    search = type(noise.search)(*(part.to(dtype) for part in noise.search))
    return noise._replace(
        search=search, prior=noise.prior.to(dtype), final_action=noise.final_action.to(dtype)
    )


@pytest.mark.parametrize("case", list(product([0, 4], [1, 3], [False, True])), ids=str)
def test_a_plan_in_one_call_is_that_of_torch_to_rounding(make_model, config, monkeypatch, case):
    prior, num, explore = case
    model, policy = make_model(replace(config, episodic=False))
    planner = LatentPlanner(model, policy, MPPIConfig(num_prior=prior, **SMALL))
    noise = as_type(planner.draw(num, torch.Generator().manual_seed(num)), torch.float32)
    latent, mean = torch.randn(num, 16).float(), torch.randn(num, 3, 2).tanh().float()
    exact = planner.plan(
        latent.double(), mean.double(), as_type(noise, torch.float64), explore=explore
    )
    model.float().eval(), policy.float()
    used, search = [], fused_plan.search
    monkeypatch.setattr(fused_plan, "search", lambda *a: used.append(1) or search(*a))

    plan = planner.plan(latent, mean, noise, explore=explore)

    assert used == [1]
    for ours, theirs in zip(plan, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_values_that_are_no_numbers_count_as_zero_in_one_call_too(make_model, config):
    model, policy = make_model(replace(config, episodic=False))
    model.float().eval(), policy.float()
    with torch.no_grad():
        model.q.last.bias.fill_(float("nan"))
    planner = LatentPlanner(model, policy, MPPIConfig(num_prior=4, **SMALL))
    noise = as_type(planner.draw(2, torch.Generator().manual_seed(0)), torch.float32)
    latent, mean = torch.randn(2, 16).float(), torch.zeros(2, 3, 2).float()

    plan = planner.plan(latent, mean, noise, explore=False)

    assert torch.equal(plan.value, torch.zeros(2).float())
    assert bool(plan.action.isfinite().all())
