"""The penalised gradient norm against its equations on quadratics, in float64."""

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


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_one_step_mixes_clean_and_perturbed_gradients(quadratic, alpha):
    """arXiv:2202.03599; alpha 1 is SAM and alpha 0 the base."""
    g = grad(START)
    ga = grad(START + 0.3 * g / g.norm())

    result = one_step(quadratic, "gnp", rho=0.3, alpha=alpha)

    close(result, START - LR * ((1 - alpha) * g + alpha * ga))
