"""The random control against its equations on quadratics, in float64."""

from functools import partial

import pytest
import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import START, H, close, grad, one_step


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
