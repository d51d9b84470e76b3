"""The tail average against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import evaluation_params, make_optimizer

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


def test_the_average_is_the_mean_of_the_weights_that_were_taken(quadratic):
    """arXiv:1803.05407: from step 2 on, every second."""
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer("swa", [param], base=base, start=2, every=2)
    weights = []

    for step in range(8):
        optimizer.step(closure)
        weights.append(param.detach().clone())
        # w_t is weights[t - 1]: the mean is that of w_3, w_5, w_7.
        taken = weights[2::2] if step >= 2 else weights[-1:]
        with evaluation_params(optimizer):
            close(param.detach(), torch.stack(taken).mean(0))
