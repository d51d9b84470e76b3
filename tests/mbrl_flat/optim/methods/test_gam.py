"""GAM against its equations on quadratics, in float64."""

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


def test_one_gam_step_combines_four_gradients(quadratic):
    """arXiv:2303.03108, accelerated."""
    rho, small, gamma = 0.3, 0.1, 0.2
    g0 = grad(START)
    g1 = grad(START + small * g0 / g0.norm())
    h = g1 - g0
    far = START + rho * h / h.norm()
    g2 = grad(far)
    g3 = grad(far + small * g2 / g2.norm())
    descent, penalty = g1 + g3, g0 + g2
    across = penalty - (penalty @ descent) / (descent @ descent) * descent

    result = one_step(quadratic, "gam", rho=rho, inner_rho=small, gamma=gamma)

    close(result, START - LR * (descent - gamma * across))
