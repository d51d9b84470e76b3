"""LookSAM against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_a_step_between_reuses_the_part_across_the_gradient(quadratic):
    """arXiv:2203.02714: g + alpha |g| / |g_v| g_v, g_v = g' - <g', g> / |g|^2 g."""
    g = grad(START)
    ga = grad(START + 0.3 * g / g.norm())
    across = ga - (ga @ g) / (g @ g) * g
    first = START - LR * ga
    h = grad(first)

    result = one_step(quadratic, "looksam", rho=0.3, alpha=0.7, every=2, steps=2)

    close(result, first - LR * (h + 0.7 * h.norm() / across.norm() * across))


def test_a_perturbed_gradient_along_the_clean_one_leaves_nothing_to_reuse(quadratic):
    """On a sphere every gradient points to the centre: both kinds of step are the base's."""
    param, closure = quadratic([[2.0, 0.0], [0.0, 2.0]], START)
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer("looksam", [param], base=base, rho=0.1, every=5)
    optimizer.step(closure)
    before = param.detach().clone()

    optimizer.step(closure)

    torch.testing.assert_close(param.detach(), before - LR * 2.0 * before, rtol=1e-7, atol=1e-7)


def test_looking_every_step_is_sam(quadratic):
    results = [
        one_step(quadratic, "looksam", rho=0.3, every=1, steps=5),
        one_step(quadratic, "sam", rho=0.3, steps=5),
    ]

    assert torch.equal(*results)
