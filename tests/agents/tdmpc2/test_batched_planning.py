"""Planning for many states at once gives each of them what it would get alone."""

from dataclasses import replace

import pytest
import torch

from mbrl_flat.agents.tdmpc2.planner import LatentPlanner
from mbrl_flat.planning.mppi import MPPIConfig, draw_noise

SMALL = MPPIConfig(num_samples=32, num_prior=4, num_elites=8, iterations=3)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def as_float64(noise):
    search = type(noise.search)(*(part.double() for part in noise.search))
    return noise._replace(
        search=search, prior=noise.prior.double(), final_action=noise.final_action.double()
    )


def of_state(noise, index):
    """What one of the states is planned with, as the noise of a single state."""
    row = slice(index, index + 1)
    search = type(noise.search)(*(part[row] for part in noise.search))
    return noise._replace(
        search=search, prior=noise.prior[row], final_action=noise.final_action[:, row]
    )


@pytest.mark.parametrize("episodic", [False, True])
@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("num", [1, 2, 8])
def test_states_planned_at_once_get_what_single_calls_give_with_the_same_noise(
    make_model, config, num, explore, episodic
):
    planner = LatentPlanner(*make_model(replace(config, episodic=episodic)), SMALL)
    latent = torch.randn(num, 16, dtype=torch.float64)
    mean = torch.randn(num, 3, 2, dtype=torch.float64).tanh()
    noise = as_float64(planner.draw(num, torch.Generator().manual_seed(num)))

    together = planner.plan(latent, mean, noise, explore=explore)

    for i in range(num):
        row = slice(i, i + 1)
        alone = planner.plan(latent[row], mean[row], of_state(noise, i), explore=explore)
        for joint, single in zip(together, alone, strict=True):
            torch.testing.assert_close(joint[row], single, **EXACT)


def test_discrete_states_planned_at_once_get_what_single_calls_give(
    make_model, config, discrete_spec
):
    planner = LatentPlanner(*make_model(config, discrete_spec), SMALL)
    latent, mean = torch.randn(4, 16).double(), torch.zeros(4, 3, 4).double()
    noise = as_float64(planner.draw(4, torch.Generator().manual_seed(0)))

    together = planner.plan(latent, mean, noise, explore=False)

    for i in range(4):
        row = slice(i, i + 1)
        alone = planner.plan(latent[row], mean[row], of_state(noise, i), explore=False)
        for joint, single in zip(together, alone, strict=True):
            torch.testing.assert_close(joint[row], single, **EXACT)


def test_a_call_is_its_draw_and_its_plan(make_model, config):
    model, policy = make_model(config)
    planner = LatentPlanner(model.float(), policy.float(), SMALL)
    latent, mean = torch.randn(2, 16), torch.zeros(2, 3, 2)

    called = planner(latent, mean, torch.Generator().manual_seed(3), explore=True)
    noise = planner.draw(2, torch.Generator().manual_seed(3))
    planned = planner.plan(latent, mean, noise, explore=True)

    assert all(torch.equal(a, b) for a, b in zip(called, planned, strict=True))


@pytest.mark.parametrize("num", [1, 2])
def test_the_stream_is_spent_in_a_fixed_order(make_model, config, num):
    """Search noise, prior noise, last noise, heads: runs of earlier versions go on unchanged."""
    planner = LatentPlanner(*make_model(config), SMALL)

    noise = planner.draw(num, torch.Generator().manual_seed(5))

    g = torch.Generator().manual_seed(5)
    search = draw_noise(SMALL, num, 2, g)
    assert all(torch.equal(a, b) for a, b in zip(noise.search, search, strict=True))
    assert torch.equal(noise.prior, torch.randn(num, 4, 3, 2, generator=g))
    assert torch.equal(noise.final_action, torch.randn(3, num, 32, 2, generator=g))
    for heads in noise.heads:
        assert torch.equal(heads, torch.randperm(3, generator=g)[:2])
