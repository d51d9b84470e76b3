"""The comparison with the public code of TD-MPC2 with SAM, where that code is not needed."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

SCRIPT = Path(__file__).parents[2] / "scripts" / "published_update.py"
RHO = 0.01


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("published_update", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_recipe_builds_an_agent_with_the_settings_it_names(script):
    for recipe in script.variants(RHO).values():
        agent = script.our_agent(recipe)
        wanted = {name: value for name, value in recipe.optimizer.items() if name != "name"}
        assert agent.optimizer.method == recipe.optimizer["name"]
        if agent.optimizer.method == "sam_as_published":
            assert {name: getattr(agent.optimizer, name) for name in wanted} == wanted
        for name, value in recipe.config.items():
            assert getattr(agent.config, name) == value


def test_both_sides_are_given_the_same_numbers_in_their_own_layouts(script):
    agent = script.our_agent(script.published(RHO))
    agent.model.train()
    latent = torch.randn(script.HORIZON, script.ROWS, agent.latent_size)
    width = agent.config.dims["mlp_dim"]
    ones = torch.ones(script.HORIZON, script.ROWS, width)
    with script.their_draws(script.Draws(5)):
        noise = torch.randn_like(torch.empty(script.HORIZON, script.ROWS, script.ACTION))
        mask, heads = F.dropout(ones), torch.randperm(2)
        assert F.dropout(ones, training=False) is ones
    with script.our_draws(agent, script.Draws(5)):
        action = agent.policy(latent.transpose(0, 1)).action
        rows = torch.ones(script.ROWS * script.HORIZON, width)
        ours = agent.model.q.dropout_mask(2, rows)
        assert torch.equal(agent.model.draw_heads(torch.device("cpu")), heads)

    expected = agent.policy(latent.transpose(0, 1), noise.transpose(0, 1)).action
    torch.testing.assert_close(action, expected)
    assert torch.equal(ours[0].view(script.ROWS, script.HORIZON, width), mask.transpose(0, 1))
    assert torch.equal(ours[0], ours[1])


def test_differences_are_the_largest_of_each_module(script):
    a = {"q.weight": torch.tensor([1.0, 2.0]), "q.bias": torch.zeros(1), "policy.w": torch.ones(1)}
    b = {**a, "q.weight": torch.tensor([1.0, 2.5]), "q.bias": torch.full((1,), 0.1)}

    assert script.largest_difference(a, b) == {"q": 0.5, "policy": 0.0}
