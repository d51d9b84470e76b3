"""Preconditioned SAM against its equations on a quadratic, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import START, H, close, grad


def test_the_second_step_perturbs_in_the_metric_of_the_first_gradient(quadratic):
    """arXiv:2502.02407: P = 1 / (sqrt(v) + eps) with v = (1 - beta) d^2 after one step of Adam."""
    rho, eps, beta = 0.3, 1e-8, 0.9
    param, closure = quadratic(H, START)
    base = partial(torch.optim.Adam, lr=0.1, betas=(0.9, beta))
    optimizer = make_optimizer("preconditioned_sam", [param], base=base, rho=rho, eps=eps)
    g = grad(START)
    first = grad(START + rho * g / g.norm())
    optimizer.step(closure)
    before = param.detach().clone()

    optimizer.step(closure)

    direction = grad(before) / ((1.0 - beta) ** 0.5 * first.abs() + eps)
    close(param.grad, grad(before + rho * direction / direction.norm()))


def test_a_base_without_second_moments_gets_an_average_of_squares(quadratic):
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=0.1)
    optimizer = make_optimizer("preconditioned_sam", [param], base=base, rho=0.3, decay=0.8)
    g = grad(START)
    optimizer.step(closure)
    before = param.detach().clone()

    optimizer.step(closure)

    direction = grad(before) / (0.2**0.5 * g.abs() + 1e-8)
    close(param.grad, grad(before + 0.3 * direction / direction.norm()))
