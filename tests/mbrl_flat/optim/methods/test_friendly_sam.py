"""Friendly SAM against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_two_steps_displace_along_the_gradient_without_its_average(quadratic):
    """arXiv:2403.12350: r = g - sigma m, m = lambda m + (1 - lambda) g, from the first gradient."""
    rho, sigma, lam = 0.3, 1.0, 0.8
    g = grad(START)
    m = g
    first = START - LR * grad(START + rho * g / g.norm())
    r = grad(first) - sigma * m

    result = one_step(quadratic, "friendly_sam", rho=rho, mean_share=sigma, decay=lam, steps=2)

    close(result, first - LR * grad(first + rho * r / r.norm()))


def test_the_average_takes_in_the_whole_gradient(quadratic):
    """Fed a constant gradient it converges to that gradient, not to a part of it."""
    param = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)

    def closure():
        param.grad = None
        loss = slope @ param
        loss.backward()
        return loss.detach()

    base = partial(torch.optim.SGD, lr=0.0)
    optimizer = make_optimizer("friendly_sam", [param], base=base, mean_share=0.5, decay=0.5)
    for _ in range(60):
        optimizer.step(closure)

    close(optimizer.method_state[param]["mean"], slope)
