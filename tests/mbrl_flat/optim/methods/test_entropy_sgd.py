"""Entropy-SGD against its equations on quadratics, in float64."""

from functools import partial

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim import make_optimizer
from tests.mbrl_flat.optim.quadratic import LR, START, H, close, grad, one_step


def test_one_step_without_noise_follows_the_chain(quadratic):
    """arXiv:1611.01838: two links of the chain by hand."""
    rate, gamma, average = 0.1, 0.5, 0.25
    x1 = START - rate * grad(START)
    mu1 = 0.75 * START + average * x1
    x2 = x1 - rate * (grad(x1) - gamma * (START - x1))
    mu2 = 0.75 * mu1 + average * x2

    result = one_step(
        quadratic, "entropy_sgd", inner_steps=2, inner_lr=rate, gamma=gamma, noise=0.0
    )

    close(result, START - LR * (START - mu2))


def test_the_pull_grows_with_the_steps(quadratic):
    results = [
        one_step(quadratic, "entropy_sgd", inner_steps=3, noise=0.0, scope=scope, steps=steps)
        for scope, steps in [(0.0, 1), (9.0, 1), (0.0, 2), (9.0, 2)]
    ]

    close(results[0], results[1])
    assert not torch.allclose(results[2], results[3])


@pytest.mark.parametrize("steps", [6_500, 720_000])
def test_the_pull_grows_to_the_inverse_of_the_inner_rate(quadratic, steps):
    """There the chain forgets itself in a step: its points are single steps from the weights."""
    param, closure = quadratic(H, START)
    rate, average = 0.1, 0.25
    base = partial(torch.optim.SGD, lr=LR)
    optimizer = make_optimizer(
        "entropy_sgd", [param], base=base, inner_steps=3, inner_lr=rate, noise=0.0
    )
    optimizer.steps = steps
    x, mu = START, START
    for _ in range(3):
        x = START - rate * grad(x)
        mu = (1.0 - average) * mu + average * x

    optimizer.step(closure)

    close(param.detach(), START - LR * (START - mu))


@pytest.mark.parametrize("wrong", [{"gamma": -1.0}, {"scope": -0.1}, {"noise": float("nan")}])
def test_settings_below_zero_are_refused(quadratic, wrong):
    param, _ = quadratic(H, START)
    with pytest.raises(UserError, match="must be at least 0"):
        make_optimizer("entropy_sgd", [param], base=partial(torch.optim.SGD, lr=LR), **wrong)
