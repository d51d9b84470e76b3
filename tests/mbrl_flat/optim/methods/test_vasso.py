"""VaSSO against its equations on quadratics, in float64."""

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


def test_two_vasso_steps_displace_along_the_moving_average(quadratic):
    """arXiv:2309.15639: m = (1 - theta) m + theta g."""
    rho, theta = 0.3, 0.4
    m = grad(START)
    first = START - LR * grad(START + rho * m / m.norm())
    m = (1 - theta) * m + theta * grad(first)

    result = one_step(quadratic, "vasso", rho=rho, theta=theta, steps=2)

    close(result, first - LR * grad(first + rho * m / m.norm()))


def test_vasso_with_theta_one_is_sam(quadratic):
    results = [
        one_step(quadratic, "vasso", rho=0.3, theta=1.0, steps=5),
        one_step(quadratic, "sam", rho=0.3, steps=5),
    ]

    close(*results)
