"""Sparse SAM against its equations on quadratics, in float64."""

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


def test_only_the_entries_with_the_largest_squared_gradient_are_displaced(quadratic):
    """g = (1, -3): half of the entries is the second one; the norm is that of both."""
    g = grad(START)
    shift = torch.stack([torch.zeros_like(g[0]), 0.3 * g[1] / g.norm()])

    result = one_step(quadratic, "ssam", rho=0.3, sparsity=0.5)

    close(result, START - LR * grad(START + shift))


def test_without_sparsity_it_is_sam(quadratic):
    results = [
        one_step(quadratic, "ssam", rho=0.3, sparsity=0.0, steps=3, refresh=2),
        one_step(quadratic, "sam", rho=0.3, steps=3),
    ]

    close(*results)
