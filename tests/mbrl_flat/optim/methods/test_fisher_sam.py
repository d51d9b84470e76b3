"""Fisher SAM against its equations on quadratics, in float64."""

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


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_step_perturbs_along_the_natural_gradient(quadratic, eta):
    """e = rho F^-1 g / sqrt(g F^-1 g), F = 1 + eta g^2; arXiv:2206.04920."""
    g = grad(START)
    natural = g / (1 + eta * g**2)

    result = one_step(quadratic, "fisher_sam", rho=0.3, eta=eta)

    close(result, START - LR * grad(START + 0.3 * natural / (g @ natural).sqrt()))
