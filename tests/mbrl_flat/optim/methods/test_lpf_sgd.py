"""LPF-SGD against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close, grad


def test_every_filter_has_noise_as_large_as_itself():
    """Ten filters of very different size, two thousand draws."""
    size = torch.logspace(-2, 2, 10, dtype=torch.float64)
    weight = torch.nn.Parameter(size[:, None] * torch.full((10, 4), 0.5, dtype=torch.float64))
    points = []

    def closure():
        weight.grad = None
        points.append(weight.detach().clone())
        loss = weight.sum()
        loss.backward()
        return loss.detach()

    base = partial(torch.optim.SGD, lr=0.0)
    optimizer = make_optimizer("lpf_sgd", [weight], base=base, sigma=0.3)
    for _ in range(2000):
        optimizer.step(closure)

    deviation = (torch.stack(points) - weight.detach()).std(dim=(0, 2))
    torch.testing.assert_close(deviation, 0.3 * size, rtol=0.05, atol=0)


def test_the_step_takes_the_gradient_at_the_noisy_point(quadratic):
    param, closure = quadratic(H, START)
    points = []

    def watched():
        points.append(param.detach().clone())
        return closure()

    base = partial(torch.optim.SGD, lr=LR)
    make_optimizer("lpf_sgd", [param], base=base, sigma=0.3).step(watched)

    close(param.detach(), START - LR * grad(points[0]))
    assert 0.0 < float((points[0] - START).norm()) < 5.0 * 0.3 * float(START.norm())
