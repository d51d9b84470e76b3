"""SAGM against its equations on quadratics, in float64."""

from functools import partial

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


def test_one_sagm_step_averages_the_clean_and_the_perturbed_gradient(quadratic):
    """arXiv:2303.10353."""
    rho, alpha = 0.3, 0.02
    g = grad(START)
    ga = grad(START + (rho / g.norm() - alpha) * g)

    result = one_step(quadratic, "sagm", rho=rho, alpha=alpha)

    close(result, START - LR * (g + ga) / 2)
