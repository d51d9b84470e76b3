"""The terms of the bounds are their formulas, and hold where the truth is known."""

import math

import pytest
import torch

from mbrl_flat.diagnostics.bounds import lipschitz_value_gap, loss_bound, pinsker, simulation_lemma


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
def test_the_simulation_lemma_holds_for_random_markov_chains(seed):
    generator = torch.Generator().manual_seed(seed)

    def chain():
        transition = torch.rand(6, 6, dtype=torch.float64, generator=generator)
        return transition / transition.sum(1, keepdim=True)

    actual, model = chain(), chain()
    reward = torch.rand(6, dtype=torch.float64, generator=generator)
    guess = (reward + 0.1 * torch.rand(6, dtype=torch.float64, generator=generator)).clamp(max=1.0)
    eye = torch.eye(6, dtype=torch.float64)
    value = torch.linalg.solve(eye - 0.9 * actual, reward)
    modelled = torch.linalg.solve(eye - 0.9 * model, guess)

    bound = simulation_lemma(
        reward_error=float((reward - guess).abs().max()),
        total_variation=float((actual - model).abs().sum(1).max() / 2.0),
        max_reward=1.0,
        discount=0.9,
    )

    assert float((value - modelled).abs().max()) <= bound.total
    assert bound.performance_gap == 2.0 * bound.total


def test_a_pure_reward_error_is_summed_up_for_ever():
    bound = simulation_lemma(reward_error=0.1, total_variation=0.0, max_reward=1.0, discount=0.9)

    assert bound.total == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5])
def test_pinsker_bounds_the_total_variation_of_coins(p):
    q = 0.6
    divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    assert abs(p - q) <= pinsker(divergence)
    assert pinsker(100.0) == 1.0
    assert pinsker(-1e-12) == 0.0


def test_the_lipschitz_bound_is_attained_by_a_constant_offset():
    """z' = z + 1, model z' = z + 1 + e, V linear with slope c: every step errs by gamma c e."""
    bound = lipschitz_value_gap(reward_error=0.0, latent_error=0.2, lipschitz=3.0, discount=0.5)

    assert bound.total == pytest.approx(0.5 * 3.0 * 0.2 / 0.5, rel=1e-12)
