"""The loss in one call against the same loss in torch, which float64 goes through."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from mbrl_flat.agents.tdmpc2 import fused_loss
from mbrl_flat.agents.tdmpc2.world_model import LossOutput
from mbrl_flat.interfaces import Targets

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def case(make_model, make_batch, make_batch32, config, monkeypatch):
    """Losses in float32, by one call, and in float64, on the same batch and dropout mask."""
    exact, policy = make_model(replace(config, episodic=False, dropout=0.2))
    model = deepcopy(exact).float().train()
    batch = make_batch(size=5)
    targets = exact.targets(batch, policy)
    short = {k: v.float() if v.is_floating_point() else v for k, v in targets.items()}
    mask = model.q.dropout_mask(model.q.num, torch.empty(15, 18).float())
    monkeypatch.setattr(model.q, "dropout_mask", lambda *a: mask)
    batch32 = make_batch32(size=5)
    assert fused_loss.usable(model, batch32)
    return (
        (model, lambda: model.loss(batch32, Targets(**short))),
        (exact, lambda: exact.loss_in_torch(batch, targets, mask.double())),
    )


def trained(model):
    return [p for module in model.trained_modules().values() for p in module.parameters()]


def assert_close(ours, theirs, relative=3e-6):
    bound = relative * max(float(theirs.detach().abs().max()), 1e-3)
    torch.testing.assert_close(ours.double(), theirs, rtol=0.0, atol=bound)


def test_value_parts_latents_and_gradients_equal_torchs_to_rounding(case):
    (model, loss), (exact, expected) = case

    ours, theirs = loss(), expected()

    assert_close(ours.loss, theirs.loss)
    assert ours.metrics.keys() == theirs.metrics.keys()
    for name, value in theirs.metrics.items():
        assert_close(ours.metrics[name], value)
    assert_close(ours.latents, theirs.latents)
    grads = torch.autograd.grad(2.0 * ours.loss, trained(model))
    wanted = torch.autograd.grad(2.0 * theirs.loss, trained(exact))
    for one, other in zip(grads, wanted, strict=True):
        assert_close(one, other)
    with torch.no_grad():
        assert torch.equal(loss().loss, ours.loss)


@pytest.mark.parametrize("only", ["encoder", "dynamics", "reward", "q"])
def test_modules_that_take_no_gradient_change_nothing_for_the_others(case, only):
    (model, loss), (exact, expected) = case
    for one in (model, exact):
        one.requires_grad_(False)
        one.trained_modules()[only].requires_grad_(True)

    loss().loss.backward()
    expected().loss.backward()

    for ours, theirs in zip(trained(model), trained(exact), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            assert_close(ours.grad, theirs.grad)


def test_a_second_backward_pass_adds_the_same_gradients(case):
    (model, loss), _ = case
    value = loss().loss
    value.backward(retain_graph=True)
    once = [p.grad.clone() for p in trained(model)]

    value.backward()

    for grad, param in zip(once, trained(model), strict=True):
        assert_close(param.grad, 2.0 * grad.double())


def test_gradients_without_autograd_are_those_of_backward_bit_for_bit(case, monkeypatch):
    (model, loss), _ = case
    model.reward.requires_grad_(False)
    expected = loss()
    expected.loss.backward()
    wanted = [None if p.grad is None else p.grad.clone() for p in trained(model)]
    monkeypatch.setattr(model, "loss", lambda *a: LossOutput(*fused_loss.differentiate(model, *a)))

    for times in (1.0, 2.0):
        model.zero_grad() if times == 1.0 else None
        found = loss()

        assert torch.equal(found.loss, expected.loss)
        assert not found.loss.requires_grad
        assert found.metrics == expected.metrics
        for param, grad in zip(trained(model), wanted, strict=True):
            assert (param.grad is None) == (grad is None)
            assert grad is None or torch.equal(param.grad, times * grad)


def test_hessian_vector_products_equal_torchs_to_rounding(case):
    products = []
    for model, loss in case:
        params = trained(model)
        torch.manual_seed(0)
        direction = [torch.randn_like(p.double()).to(p.dtype) for p in params]
        grads = torch.autograd.grad(loss().loss, params, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(grads, direction, strict=True))
        products.append(torch.autograd.grad(along, params))
    for ours, theirs in zip(*products, strict=True):
        assert_close(ours, theirs, 3e-5)


def test_a_hook_on_a_module_is_told_what_it_returns(case):
    (model, loss), _ = case
    seen = []
    model.q.register_forward_hook(lambda *a: seen.append(1))

    loss()

    assert seen == [1]
