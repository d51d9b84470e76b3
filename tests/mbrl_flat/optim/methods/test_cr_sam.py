"""CR-SAM against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, close, grad, one_step


def test_on_a_quadratic_the_second_difference_vanishes(quadratic):
    """d = g+ + beta (g+ - g-) = H (w + e) + 2 beta H e; arXiv:2312.13555."""
    g = grad(START)
    e = 0.3 * g / g.norm()

    result = one_step(quadratic, "cr_sam", rho=0.3, gamma=0.7, beta=0.2)

    close(result, START - LR * (grad(START + e) + 0.4 * grad(e)))


def test_on_a_quartic_the_second_difference_weighs_in():
    """L = w^4 / 4: g = w^3, and g+ + g- - 2 g = 6 w e^2."""
    w = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))

    def closure():
        w.grad = None
        loss = (w**4 / 4).sum()
        loss.backward()
        return loss.detach()

    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer("cr_sam", [w], base=base, rho=0.3, gamma=0.5, beta=0.0)
    optimizer.step(closure)

    close(w.detach(), torch.full_like(w, 2.0 - LR * (2.3**3 + 0.5 * 6 * 2 * 0.09)))
