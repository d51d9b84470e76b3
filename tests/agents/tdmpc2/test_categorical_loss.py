"""The cross entropies of TD-MPC2's loss, apart from their logits, and their Gauss-Newton matrix."""

from dataclasses import replace

import pytest
import torch

from mbrl_flat.diagnostics.gauss_newton import of_categorical
from mbrl_flat.diagnostics.vectors import perturbed


@pytest.fixture(params=[True, False], ids=["episodic", "endless"])
def taken_apart(request, make_model, make_batch, config):
    """A model, its loss and the categorical part of it, on one batch."""
    model, policy = make_model(replace(config, episodic=request.param))
    batch = make_batch()
    targets = model.targets(batch, policy)
    return model, model.loss(batch, targets), model.categorical_loss(batch, targets)


def test_it_is_the_loss_without_the_consistency_of_latents(taken_apart):
    model, output, categorical = taken_apart
    consistency = model.config.consistency_coef * output.metrics["train/consistency_loss"]

    found = categorical.loss(categorical.outputs())

    torch.testing.assert_close(found, output.loss - consistency, rtol=1e-10, atol=1e-10)


def test_the_gauss_newton_matrix_weighs_the_variance_of_moved_logits(taken_apart):
    r"""v^T G v = sum_i c_i Var_{p_i}(J_i v), with J v from differences of the logits."""
    model, _, categorical = taken_apart
    params = [p for module in model.trained_modules().values() for p in module.parameters()]
    product = of_categorical(categorical, params)
    direction = torch.randn(
        product.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    # Before the weights move, as the product holds a graph through them.
    found = direction @ product(direction)
    with torch.no_grad():
        logits = categorical.outputs()
        ends = []
        for sign in (1.0, -1.0):
            with perturbed(params, sign * 1e-6 * direction):
                ends.append(categorical.outputs())
    moved = {name: (ends[0][name] - ends[1][name]) / 2e-6 for name in logits}

    def variance(name):
        p = logits[name].softmax(-1)
        mean = (p * moved[name]).sum(-1, keepdim=True)
        return (p * (moved[name] - mean).square()).sum(-1)

    config, horizon = model.config, logits["reward"].shape[1]
    weight = config.temporal_decay ** torch.arange(horizon, dtype=torch.float64) / horizon
    expected = config.reward_coef * (variance("reward").mean(0) * weight).sum()
    expected += config.value_coef * (variance("value").mean((0, 1)) * weight).sum()
    if "termination" in logits:
        s = logits["termination"].sigmoid()
        ended = (s * (1.0 - s) * moved["termination"].square()).mean()
        expected += config.termination_coef * ended

    assert ("termination" in logits) == config.episodic
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
