"""SASSHA against its equations on a diagonal quadratic, in float64."""

import torch

from mbrl_flat.optim import SASSHA


def test_one_step_divides_by_the_root_of_the_curvature(quadratic):
    """arXiv:2502.18153; on a diagonal Hessian Hutchinson's estimate is exact."""
    h = torch.tensor([3.0, -2.0], dtype=torch.float64)
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    param, closure = quadratic(torch.diag(h), start)
    optimizer = SASSHA([param], lr=0.1, rho=0.3, weight_decay=0.5)
    g = h * start
    perturbed = h * (start + 0.3 * g / g.norm())

    optimizer.step(closure)

    expected = start * (1.0 - 0.1 * 0.5) - 0.1 * perturbed / (h.abs().sqrt() + 1e-4)
    torch.testing.assert_close(param.detach(), expected, rtol=1e-8, atol=0)


def test_the_curvature_is_estimated_in_every_kth_step(quadratic):
    param, closure = quadratic(torch.eye(2), [1.0, 2.0])
    optimizer = SASSHA([param], lr=0.1, refresh=3)

    counts = []
    for _ in range(4):
        optimizer.step(closure)
        counts.append(optimizer.last["evaluations"])

    assert counts == [3.0, 2.0, 2.0, 3.0]
