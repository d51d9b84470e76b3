"""SAM against its equations on quadratics, in float64."""

from functools import partial

import pytest
import torch

from mbrl_flat.optim import make_optimizer

LR = 0.1
H = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)


def one_step(quadratic, name, *, start=START, steps=1, **settings):
    param, closure = quadratic(H, start)
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer(name, [param], base=base, **settings)
    for _ in range(steps):
        optimizer.step(closure)
    return param.detach()


def grad(w):
    return H @ w


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_one_sam_step_takes_the_gradient_at_the_end_of_the_ball(quadratic, rho):
    """arXiv:2010.01412, Eq. 2."""
    g = grad(START)

    result = one_step(quadratic, "sam", rho=rho)

    close(result, START - LR * grad(START + rho * g / g.norm()))


def test_only_every_kth_step_of_sam_is_perturbed(quadratic):
    g = grad(START)
    first = START - LR * grad(START + 0.5 * g / g.norm())

    result = one_step(quadratic, "sam", rho=0.5, every=2, steps=2)

    close(result, first - LR * grad(first))
