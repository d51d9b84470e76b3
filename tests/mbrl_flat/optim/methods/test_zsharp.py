"""ZSharp against its equations on quadratics, in float64."""

import torch

from mbrl_flat.optim import ZSharp
from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_the_perturbation_keeps_the_entries_that_stand_out(quadratic):
    """arXiv:2505.02369 with a gradient of (4, 1, 1, 1), whose first entry has the largest z."""
    start = torch.tensor([4.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    param, closure = quadratic(torch.eye(4), start)

    optimizer = ZSharp([param], base=torch.optim.SGD, lr=LR, rho=0.5, percentile=0.75)

    optimizer.step(closure)

    there = start + 0.5 * torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    close(param.detach(), start - LR * there)


def test_with_percentile_zero_it_is_sam(quadratic):
    rho = 0.3
    g = grad(START)

    result = one_step(quadratic, "zsharp", rho=rho, percentile=0.0)

    close(result, START - LR * grad(START + rho * g / g.norm()))
