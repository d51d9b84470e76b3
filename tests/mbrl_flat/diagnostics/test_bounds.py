"""The terms of the bounds are their formulas, and hold where the truth is known."""

import math

import numpy as np
import pytest

from mbrl_flat.diagnostics.bounds import lipschitz_value_gap, loss_bound


def test_the_complexity_is_its_formula():
    found = loss_bound(
        loss=0.5, gap=0.1, rho=0.05, param_norm=2.0, num_params=100, num_samples=1000, delta=0.1
    )

    spread = (1.0 + math.sqrt(math.log(1000) / 100)) ** 2
    inside = 100 * math.log(1.0 + 1600.0 * spread) + 4.0 * math.log(1e4)
    assert found.complexity == pytest.approx(math.sqrt(inside / 999), rel=1e-12)
    assert found.total == pytest.approx(0.6 + found.complexity, rel=1e-12)


def test_more_samples_and_smaller_weights_tighten_the_bound():
    def complexity(norm, samples):
        return loss_bound(
            loss=0.0, gap=0.0, rho=0.1, param_norm=norm, num_params=50, num_samples=samples
        ).complexity

    assert complexity(1.0, 1000) < complexity(2.0, 1000)
    assert complexity(1.0, 10_000) < complexity(1.0, 1000)


@pytest.mark.parametrize(
    "wrong", [{"rho": 0.0}, {"num_params": 0}, {"num_samples": 1}, {"delta": 1.0}]
)
def test_numbers_without_a_bound_are_refused(wrong):
    settings = {"rho": 0.1, "num_params": 5, "num_samples": 10, "delta": 0.1} | wrong
    with pytest.raises(ValueError, match="must be"):
        loss_bound(loss=0.0, gap=0.0, param_norm=1.0, **settings)


@pytest.mark.parametrize("seed", range(5))
def test_the_value_of_a_lipschitz_model_is_off_by_no_more_than_the_bound(seed):
    """Deterministic chains on a line with |f'| < 1: Lip(V) = 1 / (1 - 0.9 * 0.8) for r = x."""
    rng = np.random.default_rng(seed)
    offset, reward_offset = rng.uniform(-0.1, 0.1, 2)

    def value(start, shift, extra):
        total, x = 0.0, start
        for step in range(400):
            total += 0.9**step * (x + extra)
            x = 0.8 * math.sin(x) + shift
        return total

    bound = lipschitz_value_gap(
        reward_error=abs(reward_offset),
        latent_error=abs(offset),
        lipschitz=1.0 / (1.0 - 0.9 * 0.8),
        discount=0.9,
    )

    start = rng.uniform(-1.0, 1.0)
    assert abs(value(start, 0.0, 0.0) - value(start, offset, reward_offset)) <= bound.total
    assert bound.performance_gap == 2.0 * bound.total


def test_the_lipschitz_bound_is_attained_by_a_constant_offset():
    """z' = z + 1, model z' = z + 1 + e, V linear with slope c: every step errs by gamma c e."""
    bound = lipschitz_value_gap(reward_error=0.0, latent_error=0.2, lipschitz=3.0, discount=0.5)

    assert bound.total == pytest.approx(0.5 * 3.0 * 0.2 / 0.5, rel=1e-12)
