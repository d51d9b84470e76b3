"""Settings by which the public code of TD-MPC2 with SAM differs from TD-MPC2, in float64."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mbrl_flat.optim import make_optimizer, module_groups

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def test_coefficients_take_the_horizon_out_of_the_reward_and_value_losses(
    make_model, make_batch, config, by_hand
):
    """The published sum over steps of ``decay^t CE_t`` is three times the official mean."""
    config = replace(config, episodic=False, reward_coef=0.3, value_coef=0.3)
    model, policy = make_model(config)
    batch, p = make_batch(), by_hand.all_parameters(model, policy)
    targets = model.targets(batch, policy)
    torch.manual_seed(4)
    heads, noise = torch.randperm(3)[:2], torch.randn(4, 3, 2, dtype=torch.float64)
    y, latent = by_hand.td_targets(p, batch, discount=model.discount, heads=heads, noise=noise)
    torch.manual_seed(4)
    targets = model.targets(batch, policy)

    loss = model.loss(batch, targets).loss

    latents = [by_hand.mlp(p["encoder"], batch.obs["state"][:, 0], simnorm=True)]
    consistency, summed = 0.0, 0.0
    for t in range(3):
        pair = torch.cat([latents[-1], batch.action[:, t]], -1)
        reward = by_hand.cross_entropy(by_hand.mlp(p["reward"], pair), batch.reward[:, t]).mean()
        values = [
            by_hand.cross_entropy(by_hand.mlp(by_hand.member(p["q"], k), pair), y[:, t]).mean()
            for k in range(3)
        ]
        summed = summed + 0.5**t * (0.1 * reward + 0.1 * sum(values) / 3)
        latents.append(by_hand.mlp(p["dynamics"], pair, simnorm=True))
        consistency = consistency + 0.5**t * ((latents[-1] - latent[:, t]) ** 2).mean() / 3
    torch.testing.assert_close(loss, 20.0 * consistency + summed, **EXACT)


@pytest.mark.parametrize("choice", ["fixed", "recomputed"])
def test_targets_are_those_of_the_weights_that_the_setting_names(
    make_agent, make_batch, config, by_hand, choice
):
    """In the second evaluation of SAM, from the same heads and noise as in the first."""
    agent = make_agent(replace(config, targets=choice), dtype=torch.float64)
    groups = module_groups(agent.model.trained_modules())
    base = partial(torch.optim.SGD, lr=1e-3)
    agent.optimizer = make_optimizer("sam", groups, base=base, rho=0.5)
    batch, loss, seen = make_batch(), agent._loss, []

    def record(*arguments):
        weights = by_hand.all_parameters(agent.model, agent.policy)
        seen.append((weights, arguments[1]))
        return loss(*arguments)

    agent._loss = record
    torch.manual_seed(5)
    agent.update(batch)

    torch.manual_seed(5)
    heads, noise = torch.randperm(3)[:2], torch.randn(4, 3, 2, dtype=torch.float64)
    at = [seen[0][0], seen[choice == "recomputed"][0]]
    for weights, (_, targets) in zip(at, seen, strict=True):
        y, latent = by_hand.td_targets(
            weights, batch, discount=agent.discount, heads=heads, noise=noise
        )
        torch.testing.assert_close(targets["next_latent"], latent, **EXACT)
        lower, share = agent.model.two_hot.position(y)
        assert torch.equal(targets["q_lower"], lower)
        torch.testing.assert_close(targets["q_share"], share, rtol=1e-7, atol=1e-9)
    first, second = (weights["encoder"]["0.linear.weight"] for weights, _ in seen)
    assert not torch.equal(first, second)


def test_an_update_of_one_evaluation_is_the_same_whenever_targets_are_computed(
    make_agent, make_batch32, config, by_hand
):
    results = []
    for choice in ("fixed", "recomputed"):
        agent = make_agent(replace(config, targets=choice, dropout=0.1))
        torch.manual_seed(6)
        for seed in range(2):
            agent.update(make_batch32(seed=seed))
        results.append(by_hand.all_parameters(agent.model, agent.policy))

    for module, parameters in results[0].items():
        for name, value in parameters.items():
            assert torch.equal(value, results[1][module][name]), f"{module}.{name}"


@pytest.mark.parametrize("same_rng", [True, False])
def test_dropout_masks_are_shared_or_drawn_again(make_agent, make_batch32, config, same_rng):
    """``optimizer.same_rng=false``: at a radius that moves nothing only a mask changes the loss."""
    agent = make_agent(replace(config, dropout=0.5))
    groups = module_groups(agent.model.trained_modules())
    agent.optimizer = make_optimizer("sam", groups, lr=1e-3, rho=1e-8, same_rng=same_rng)
    loss, seen = agent._loss, []

    def record(*arguments):
        output = loss(*arguments)
        seen.append(float(output.loss.detach()))
        return output

    agent._loss = record
    agent.update(make_batch32())

    assert (seen[0] == pytest.approx(seen[1], rel=1e-6)) == same_rng
