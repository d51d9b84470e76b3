"""bSAM against its equations on quadratics, in float64."""

import pytest
import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import START, H, close, grad


def test_two_steps_follow_the_equations(quadratic):
    """arXiv:2210.01620, with the noise read off the first point of every step."""
    lr, rho, b1, b2, prior, damping, num, s0 = 0.3, 0.2, 0.9, 0.95, 4.0, 0.1, 50.0, 2.0
    param, closure = quadratic(H, START)
    points = []

    def watched():
        points.append(param.detach().clone())
        return closure()

    optimizer = make_optimizer(
        "bsam",
        [param],
        lr=lr,
        rho=rho,
        betas=(b1, b2),
        prior=prior,
        damping=damping,
        num_data=num,
        init_precision=s0,
    )
    delta = prior / num
    w, s, m = START.clone(), torch.full_like(START, s0), torch.zeros_like(START)

    for _ in range(2):
        optimizer.step(watched)
        g1 = grad(points[-2])
        close(points[-1], w + rho * g1 / s)
        m = b1 * m + (1 - b1) * (grad(w + rho * g1 / s) + delta * w)
        w = w - lr * m / s
        s = b2 * s + (1 - b2) * (s.sqrt() * g1.abs() + damping + delta)
        close(param.detach(), w)


def test_the_noise_has_the_variance_of_the_posterior():
    """Entries of a large parameter: 1 / sqrt(N s)."""
    w = torch.nn.Parameter(torch.zeros(20_000, dtype=torch.float64))
    points = []

    def closure():
        w.grad = None
        points.append(w.detach().clone())
        loss = w.square().sum()
        loss.backward()
        return loss.detach()

    make_optimizer("bsam", [w], num_data=100.0, init_precision=1.0).step(closure)

    assert float(points[0].std()) == pytest.approx(0.1, rel=0.03)
