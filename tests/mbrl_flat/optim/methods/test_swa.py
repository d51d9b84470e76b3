"""The tail average against its equations on quadratics, in float64."""

from functools import partial

import torch

from mbrl_flat.optim import evaluation_params, make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close


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
