"""Adam's preconditioner: the step sizes it takes, and the sharpness at which it diverges."""

from functools import partial

import pytest
import torch
from torch import nn

from mbrl_flat.diagnostics.preconditioned import step_scales, threshold
from mbrl_flat.optim.registry import make_optimizer


def adam_on(hessian, weight, steps, lr, betas=(0.9, 0.999)):
    weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=lr, betas=betas, eps=1e-8)
    for _ in range(steps):
        weight.grad = hessian * weight.detach()
        optimizer.step()
    return weight, optimizer


def test_adams_next_step_is_its_scale_times_a_mean_gradient():
    """eta / P * m: step sizes read from the state are those that Adam takes."""
    hessian = torch.tensor([3.0, 0.5], dtype=torch.float64)
    weight, optimizer = adam_on(hessian, [1.0, -2.0], steps=5, lr=0.01)
    before = weight.detach().clone()
    weight.grad = hessian * before

    optimizer.step()

    scales = step_scales(optimizer, [weight])
    assert scales is not None
    # P holds the bias correction of the mean gradient, which m itself lacks.
    moved = before - scales * optimizer.state[weight]["exp_avg"]
    torch.testing.assert_close(weight.detach(), moved, rtol=1e-12, atol=1e-14)


def test_adam_with_a_fixed_preconditioner_diverges_exactly_above_the_threshold():
    """Heavy-ball form of Adam on a quadratic: stable up to (2 + 2 beta1) / (1 - beta1)."""
    beta1 = 0.9
    _, optimizer = adam_on(torch.ones(1, dtype=torch.float64), [1.0], steps=1, lr=0.1)
    limit = threshold(optimizer)

    def radius(sharpness):
        step = torch.tensor(
            [[1.0 - sharpness * (1.0 - beta1), -sharpness * beta1], [1.0 - beta1, beta1]],
            dtype=torch.float64,
        )
        return float(torch.linalg.eigvals(step).abs().max())

    assert limit == pytest.approx(38.0)
    assert radius(0.999 * limit) < 1.0 < radius(1.001 * limit)


KINDS = {
    "adam": partial(torch.optim.Adam),
    "amsgrad": partial(torch.optim.Adam, amsgrad=True),
    "adamw": partial(torch.optim.AdamW, weight_decay=0.0),
    "nadam": partial(torch.optim.NAdam, momentum_decay=100.0),
    "radam": partial(torch.optim.RAdam),
}


@pytest.mark.parametrize(("factor", "grows"), [(0.97, False), (1.03, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_adam_becomes_unstable_at_its_own_threshold(kind, factor, grows):
    """A quadratic whose gradients are far below eps, so that the preconditioner is constant."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = KINDS[kind]([weight], lr=0.1, betas=(0.9, 0.95), eps=1e3)
    for _ in range(500):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    scales = step_scales(optimizer, [weight])
    assert scales is not None
    hessian = factor * threshold(optimizer) / float(scales)

    with torch.no_grad():
        weight.fill_(1e-9)
    for _ in range(200):
        weight.grad = hessian * weight.detach()
        optimizer.step()

    assert (float(weight.detach().abs()) > 1e-9) == grows


def test_an_optimizer_around_adam_has_its_scales_and_one_like_it_has_none():
    weight = nn.Parameter(torch.ones(2))
    around = make_optimizer("sam", [weight], base=torch.optim.Adam, rho=0.1)

    def closure():
        around.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    around.step(closure)

    found = step_scales(around, [weight])

    assert found is not None
    torch.testing.assert_close(found, step_scales(around.base, [weight]))

    class Other(torch.optim.Optimizer):
        def step(self, closure=None):
            self.state[weight] = {"step": 1, "exp_avg_sq": torch.ones(2)}

    other = Other([weight], {"betas": (0.9, 0.999, 0.9), "lr": 0.1, "eps": 1e-8})
    other.step()
    assert step_scales(other, [weight]) is None


def test_optimizers_of_another_kind_have_no_scales():
    weight = nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([weight])

    assert step_scales(torch.optim.SGD([weight], lr=0.1), [weight]) is None
    assert step_scales(adam, [weight]) is None
    assert step_scales(adam, [nn.Parameter(torch.ones(2))]) is None
