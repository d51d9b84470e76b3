"""The moving average against its equations on quadratics, in float64."""

from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS, evaluation_params, make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close


def trajectory(quadratic, name, steps=6, **settings):
    param, closure = quadratic(H, START)
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer(name, [param], base=base, **settings)
    weights, averages = [], []
    for _ in range(steps):
        optimizer.step(closure)
        weights.append(param.detach().clone())
        with evaluation_params(optimizer):
            averages.append(param.detach().clone())
    return weights, averages


def test_the_average_follows_its_recursion(quadratic):
    weights, averages = trajectory(quadratic, "ema", decay=0.2)

    expected = weights[0]
    for t, (w, average) in enumerate(zip(weights, averages, strict=True)):
        beta = min(0.2, (1 + t) / (10 + t)) if t else 0.0
        expected = beta * expected + (1 - beta) * w
        close(average, expected)


def test_learning_is_that_of_any_optimizer_of_the_registry(quadratic):
    inner = partial(OPTIMIZERS["sam"].build, base=partial(torch.optim.SGD, lr=LR), rho=0.3)
    results = []
    for name, base in (("ema", inner), ("sam", partial(torch.optim.SGD, lr=LR))):
        param, closure = quadratic(H, START)
        settings = {"rho": 0.3} if name == "sam" else {}
        optimizer = make_optimizer(name, [param], base=base, max_grad_norm=1.0, **settings)
        for _ in range(4):
            optimizer.step(closure)
        assert optimizer.last["evaluations"] == 2.0
        results.append(param.detach())

    assert torch.equal(*results)


def test_a_step_under_the_averages_is_refused(quadratic):
    param, closure = quadratic(H, START)
    optimizer = make_optimizer("ema", [param], base="sgd")
    optimizer.step(closure)

    with evaluation_params(optimizer), pytest.raises(UserError, match="evaluation_params"):
        optimizer.step(closure)
