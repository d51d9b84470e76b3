"""Plans valued in bfloat16: near the full-precision values, by the weights of the moment."""

import pytest
import torch

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.planner import LatentPlanner
from mbrl_flat.errors import UserError
from mbrl_flat.planning.mppi import MPPIConfig

SMALL = MPPIConfig(num_samples=64, num_prior=4, num_elites=8, iterations=3)


@pytest.fixture
def planners(make_model, config):
    model, policy = (module.float() for module in make_model(config))
    return [LatentPlanner(model, policy, SMALL, dtype=d) for d in ("float32", "bfloat16")]


def inputs(num=2):
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(num, 16, generator=g),
        torch.randn(num, 64, 3, 2, generator=g),
        torch.randn(num, 64, 2, generator=g),
        torch.tensor([2, 0]),
    )


def test_values_are_ranked_as_in_full_precision(planners):
    full, short = (planner.estimate_return(*inputs()) for planner in planners)

    assert short.dtype == torch.float32
    correlation = torch.corrcoef(torch.stack([full.flatten(), short.flatten()]))[0, 1]
    assert correlation > 0.99


def test_in_full_precision_the_models_own_networks_are_asked(planners):
    full, short = planners

    assert full.networks.q is full.model.q
    assert short.networks.q is not short.model.q
    assert all(p.dtype == torch.bfloat16 for p in short.networks.parameters())
    assert not any(p.requires_grad for p in short.networks.parameters())


def test_the_copy_has_the_weights_of_the_moment(planners):
    _, short = planners
    latent, mean = torch.randn(1, 16), torch.zeros(1, 3, 2)
    with torch.no_grad():
        for parameter in short.model.parameters():
            parameter.mul_(1.5)

    short(latent, mean, torch.Generator().manual_seed(0), explore=False)

    copied = short.networks.dynamics[0].linear.weight
    assert torch.equal(copied, short.model.dynamics[0].linear.weight.to(torch.bfloat16))


def test_a_plan_in_bfloat16_is_a_plan_in_the_box_in_float32(planners):
    plan = planners[1](
        torch.randn(3, 16), torch.zeros(3, 3, 2), torch.Generator().manual_seed(0), explore=False
    )

    assert all(part.dtype == torch.float32 for part in plan)
    # Weights sum to one up to rounding, and so does a mean of elites at the edge of the box.
    assert plan.mean.abs().max() <= 1.0 + 1e-6
    assert all(part.isfinite().all() for part in plan)


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="Unknown planner_dtype 'bfloat61'; did you mean"):
        TDMPC2Config(planner_dtype="bfloat61")
