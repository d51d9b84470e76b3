"""WSAM against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close, grad, one_step


def test_one_decoupled_step_adds_the_sharpness_past_the_base(quadratic):
    """arXiv:2305.15817: w - lr g - lr alpha (g' - g), alpha = gamma / (1 - gamma)."""
    g = grad(START)
    ga = grad(START + 0.3 * g / g.norm())

    result = one_step(quadratic, "wsam", rho=0.3, gamma=0.8)

    close(result, START - LR * g - LR * 4.0 * (ga - g))


def test_one_coupled_step_gives_the_weighted_gradient_to_the_base(quadratic):
    g = grad(START)
    ga = grad(START + 0.3 * g / g.norm())

    result = one_step(quadratic, "wsam", rho=0.3, gamma=0.8, form="coupled")

    close(result, START - LR * (4.0 * ga - 3.0 * g))


def test_coupled_with_gamma_one_half_is_sam(quadratic):
    results = [
        one_step(quadratic, "wsam", rho=0.3, gamma=0.5, form="coupled", steps=5),
        one_step(quadratic, "sam", rho=0.3, steps=5),
    ]

    assert torch.equal(*results)


def test_clipping_shrinks_the_sharpness_with_the_gradient(quadratic):
    g = grad(START)
    ga = grad(START + 0.3 * g / g.norm())
    shrink = 1.0 / (g.norm() + 1e-6)

    result = one_step(quadratic, "wsam", rho=0.3, gamma=0.8, max_grad_norm=1.0)

    close(result, START - LR * shrink * (g + 4.0 * (ga - g)))


def test_the_sharpness_of_several_micro_batches_is_averaged(quadratic):
    """Twice the same micro-batch is the same as once."""
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer("wsam", [param], base=base, rho=0.3, micro_batches="each")

    optimizer.step([closure, closure])

    close(param.detach(), one_step(quadratic, "wsam", rho=0.3))
