"""The random control against its equations on quadratics, in float64."""

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


def test_the_random_displacement_has_length_rho_and_another_direction_every_step(quadratic):
    """On a quadratic, the perturbation is H^-1 (g' - g)."""
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=0.0)
    optimizer = make_optimizer("random_direction", [param], base=base, rho=0.3)
    perturbation = []

    for _ in range(3):
        optimizer.step(closure)
        perturbation.append(torch.linalg.solve(H, param.grad - grad(START)))

    for shift in perturbation:
        close(shift.norm(), torch.tensor(0.3, dtype=torch.float64))
    assert not torch.allclose(perturbation[0], perturbation[1])


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)])
def test_the_direction_follows_from_the_seed(quadratic, seeds):
    results = []
    for seed in seeds:
        torch.manual_seed(seed)
        results.append(one_step(quadratic, "random_direction", rho=0.3))

    assert torch.equal(*results) == (seeds[0] == seeds[1])
