"""MPPI against its equations worked by hand, and against problems whose optimum is known."""

import math

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.planning.mppi import MPPIConfig, Noise, draw_noise, mppi

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def zero_noise(config, num, action_size):
    sampled = config.num_samples - config.num_prior
    shape = (num, config.iterations, sampled, config.horizon, action_size)
    return Noise(
        samples=torch.zeros(shape, dtype=torch.float64),
        choice=torch.zeros(num, config.num_elites, dtype=torch.float64),
        exploration=torch.zeros(num, action_size, dtype=torch.float64),
    )


def random_noise(config, num, action_size, seed):
    noise = draw_noise(config, num, action_size, torch.Generator().manual_seed(seed))
    return Noise(*(part.double() for part in noise))


def empty_prior(num, config, action_size):
    return torch.zeros(num, config.num_prior, config.horizon, action_size, dtype=torch.float64)


def one_step(values, *, num_elites, temperature=0.5, **kwargs):
    """Plan one step of one action among 0.5, -0.25, 0.1 and a sample at 0.4, with given values."""
    config = MPPIConfig(
        horizon=1,
        num_samples=4,
        num_prior=3,
        num_elites=num_elites,
        iterations=1,
        temperature=temperature,
    )
    prior = torch.tensor([0.5, -0.25, 0.1], dtype=torch.float64).reshape(1, 3, 1, 1)
    noise = zero_noise(config, 1, 1)
    noise = noise._replace(samples=noise.samples + 0.2)
    noise = noise._replace(exploration=noise.exploration + 1.0)
    row = torch.tensor([values], dtype=torch.float64)
    previous = torch.zeros(1, 1, 1, dtype=torch.float64)
    options = {"explore": False, **kwargs}
    return mppi(lambda actions, i: row, prior, previous, noise, config, **options)


def test_the_elites_are_refitted_as_worked_by_hand():
    """Elites -0.25 and 0.1 with values 3 and 2 weigh 1 and exp(-0.5), before normalisation."""
    w = 1.0 / (1.0 + math.exp(-0.5))
    mean = w * -0.25 + (1.0 - w) * 0.1
    std = math.sqrt(w * (-0.25 - mean) ** 2 + (1.0 - w) * (0.1 - mean) ** 2)

    plan = one_step([1.0, 3.0, 2.0, 0.0], num_elites=2)
    exploring = one_step([1.0, 3.0, 2.0, 0.0], num_elites=2, explore=True)

    assert plan.mean.item() == pytest.approx(mean, abs=1e-12)
    assert plan.value.item() == pytest.approx(w * 3.0 + (1.0 - w) * 2.0, abs=1e-12)
    assert plan.action.item() == -0.25
    assert exploring.action.item() == pytest.approx(-0.25 + std, abs=1e-12)


def test_a_single_elite_leaves_the_least_noise():
    plan = one_step([1.0, 3.0, 2.0, 0.0], num_elites=1, explore=True)

    assert plan.mean.item() == -0.25
    assert plan.action.item() == pytest.approx(-0.25 + 0.05, abs=1e-12)


def test_the_first_action_of_a_plan_is_taken_with_the_noise_of_the_first_step():
    """Two elites of equal weight: (0.2, 0.9) and (0.4, -0.9), whose mean is (0.3, 0)."""
    config = MPPIConfig(horizon=2, num_samples=3, num_prior=2, num_elites=2, iterations=1)
    prior = torch.tensor([[0.2, 0.9], [0.4, -0.9]], dtype=torch.float64).reshape(1, 2, 2, 1)
    values = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    noise = zero_noise(config, 1, 1)
    noise = noise._replace(
        choice=torch.tensor([[0.0, 5.0]], dtype=torch.float64), exploration=noise.exploration + 1.0
    )
    previous = torch.zeros(1, 2, 1, dtype=torch.float64)

    plan = mppi(lambda actions, i: values, prior, previous, noise, config, explore=True)

    assert plan.mean.flatten().tolist() == pytest.approx([0.3, 0.0], abs=1e-12)
    assert plan.action.item() == pytest.approx(0.4 + 0.1, abs=1e-12)


def test_a_value_that_is_not_a_number_counts_as_zero():
    plan = one_step([-1.0, math.nan, -2.0, -3.0], num_elites=1)

    assert plan.mean.item() == -0.25
    assert plan.value.item() == 0.0


def test_weights_follow_differences_of_values_only():
    low = one_step([1.0, 3.0, 2.0, 0.0], num_elites=3)
    high = one_step([1001.0, 1003.0, 1002.0, 1000.0], num_elites=3)

    torch.testing.assert_close(high.mean, low.mean, **EXACT)
    torch.testing.assert_close(high.value, low.value + 1000.0, **EXACT)


def test_sequences_of_the_prior_stay_through_all_iterations_and_samples_stay_in_the_box():
    config = MPPIConfig(horizon=2, num_samples=16, num_prior=5, num_elites=4, iterations=3)
    generator = torch.Generator().manual_seed(0)
    prior = torch.randn(2, 5, 2, 3, generator=generator, dtype=torch.float64).tanh()
    seen = []

    def objective(actions, iteration):
        assert iteration == len(seen)
        seen.append(actions)
        return -actions.square().sum((-1, -2))

    previous = torch.zeros(2, 2, 3, dtype=torch.float64)
    mppi(objective, prior, previous, random_noise(config, 2, 3, 1), config, explore=True)

    assert len(seen) == 3
    assert all(actions.shape == (2, 16, 2, 3) for actions in seen)
    assert all(torch.equal(actions[:, :5], prior) for actions in seen)
    assert all(actions.abs().max() <= 1.0 for actions in seen)


def test_samples_of_the_next_iteration_have_the_mean_and_spread_of_the_elites():
    config = MPPIConfig(horizon=1, num_samples=8, num_prior=0, num_elites=3, iterations=2)
    noise = random_noise(config, 1, 2, 0)
    seen, values = [], []

    def objective(actions, iteration):
        seen.append(actions)
        values.append(-(actions - 0.3).square().sum((-1, -2)))
        return values[-1]

    mppi(
        objective,
        empty_prior(1, config, 2),
        torch.zeros(1, 1, 2, dtype=torch.float64),
        noise,
        config,
        explore=False,
    )

    best = sorted(range(8), key=lambda i: -values[0][0, i].item())[:3]
    weights = [math.exp(0.5 * values[0][0, i].item()) for i in best]
    weights = [w / sum(weights) for w in weights]
    mean = sum(w * seen[0][0, i] for w, i in zip(weights, best, strict=True))
    spread = sum(w * (seen[0][0, i] - mean) ** 2 for w, i in zip(weights, best, strict=True))
    std = spread.sqrt().clamp(0.05, 2.0)
    expected = (mean + std * noise.samples[0, 1]).clamp(-1.0, 1.0)
    torch.testing.assert_close(seen[1][0], expected, **EXACT)


def test_the_mean_of_the_step_before_is_shifted_by_one_and_ends_in_zero():
    config = MPPIConfig(horizon=3, num_samples=1, num_prior=0, num_elites=1, iterations=1)
    previous = torch.tensor([[[0.1], [0.2], [0.3]]], dtype=torch.float64)
    seen = []

    def objective(actions, iteration):
        seen.append(actions)
        return torch.zeros(1, 1, dtype=torch.float64)

    mppi(
        objective,
        empty_prior(1, config, 1),
        previous,
        zero_noise(config, 1, 1),
        config,
        explore=False,
    )

    assert seen[0].flatten().tolist() == [0.2, 0.3, 0.0]
    assert previous.flatten().tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_of_a_concave_quadratic_inside_the_box_is_found(seed):
    config = MPPIConfig(temperature=20.0, iterations=10)
    optimum = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed)).double() - 0.5

    plan = mppi(
        lambda actions, i: -(actions - optimum).square().sum((-1, -2)),
        empty_prior(1, config, 2)[:, :24],
        torch.zeros(1, 3, 2, dtype=torch.float64),
        random_noise(config, 1, 2, seed),
        config,
        explore=False,
    )

    # The noise never falls below min_std = 0.05; the mean of 64 elites is closer than that.
    torch.testing.assert_close(plan.mean[0], optimum, rtol=0, atol=0.05)
    assert plan.value.item() > -0.05


def test_an_optimum_outside_the_box_is_met_at_its_edge():
    config = MPPIConfig(num_samples=128, num_prior=0, num_elites=16)

    plan = mppi(
        lambda actions, i: actions.sum((-1, -2)),
        empty_prior(1, config, 2),
        torch.zeros(1, 3, 2, dtype=torch.float64),
        random_noise(config, 1, 2, 0),
        config,
        explore=False,
    )

    assert (plan.mean > 0.95).all()
    assert (plan.mean <= 1.0).all()


@pytest.mark.parametrize("explore", [False, True])
def test_several_states_at_once_get_what_each_gets_alone(explore):
    num, config = 4, MPPIConfig(num_samples=32, num_prior=4, num_elites=8, iterations=3)
    generator = torch.Generator().manual_seed(0)
    goal = torch.randn(num, 1, 3, 2, generator=generator, dtype=torch.float64)
    prior = torch.randn(num, 4, 3, 2, generator=generator, dtype=torch.float64).tanh()
    previous = torch.randn(num, 3, 2, generator=generator, dtype=torch.float64).tanh()
    noise = random_noise(config, num, 2, 1)

    def plan(rows):
        return mppi(
            lambda actions, i: -(actions - goal[rows]).square().sum((-1, -2)) * (i + 1),
            prior[rows],
            previous[rows],
            Noise(*(part[rows] for part in noise)),
            config,
            explore=explore,
        )

    together = plan(slice(0, num))

    for i in range(num):
        for joint, alone in zip(together, plan(slice(i, i + 1)), strict=True):
            torch.testing.assert_close(joint[i : i + 1], alone, **EXACT)


def test_the_acted_elite_is_drawn_by_its_weight():
    """Gumbel-max: elite i with probability w_i. Standard error of a share is below 0.008."""
    num = 4000
    config = MPPIConfig(horizon=1, num_samples=3, num_prior=3 - 1, num_elites=3, iterations=1)
    prior = torch.tensor([-0.5, 0.5], dtype=torch.float64).reshape(1, 2, 1, 1)
    values = torch.tensor([[2.0, 0.0, -2.0]], dtype=torch.float64).expand(num, -1)
    noise = random_noise(config, num, 1, 0)
    noise = noise._replace(samples=torch.zeros_like(noise.samples))

    plan = mppi(
        lambda actions, i: values,
        prior.expand(num, -1, -1, -1),
        torch.zeros(num, 1, 1, dtype=torch.float64),
        noise,
        config,
        explore=False,
    )

    weights = torch.softmax(0.5 * values[0], 0)
    for action, weight in zip((-0.5, 0.5, 0.0), weights, strict=True):
        share = (plan.action == action).double().mean()
        assert share.item() == pytest.approx(weight.item(), abs=0.03)


def test_noise_has_its_shapes_is_finite_and_follows_from_the_generator():
    config = MPPIConfig(num_samples=10, num_prior=3, num_elites=4, iterations=2, horizon=5)
    state = torch.get_rng_state()

    first = draw_noise(config, 6, 2, torch.Generator().manual_seed(7))
    second = draw_noise(config, 6, 2, torch.Generator().manual_seed(7))

    assert first.samples.shape == (6, 2, 7, 5, 2)
    assert first.choice.shape == (6, 4)
    assert first.exploration.shape == (6, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(part.isfinite().all() for part in first)
    assert torch.equal(state, torch.get_rng_state())


def test_gumbel_noise_has_the_mean_and_variance_of_its_law():
    """Euler's constant and pi^2 / 6; standard errors 0.004 and 0.012 at 100000 draws."""
    config = MPPIConfig(num_samples=2, num_prior=0, num_elites=1, iterations=1, horizon=1)

    choice = draw_noise(config, 100_000, 1, torch.Generator().manual_seed(0)).choice.double()

    assert choice.mean().item() == pytest.approx(0.5772156649, abs=0.02)
    assert choice.var().item() == pytest.approx(math.pi**2 / 6.0, abs=0.06)


def test_defaults_are_the_published_values():
    config = MPPIConfig()

    assert (config.horizon, config.num_samples, config.num_prior) == (3, 512, 24)
    assert (config.num_elites, config.iterations, config.temperature) == (64, 6, 0.5)
    assert (config.min_std, config.max_std) == (0.05, 2.0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"num_prior": 512}, "num_prior must be below num_samples=512 .* got 512 and 64"),
        ({"num_prior": -1}, "num_prior must be at least 0, got -1"),
        ({"num_elites": 0}, "num_elites must be at least 1, got 0"),
        ({"num_elites": 513}, "num_elites at most as many, got 24 and 513"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"min_std": 3.0}, "min_std must be at most max_std=2.0, got 3.0"),
        ({"min_std": 0.0}, "min_std must be above 0, got 0.0"),
        ({"temperature": -0.5}, "temperature must be above 0, got -0.5"),
    ],
)
def test_settings_out_of_range_are_named(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        MPPIConfig(**wrong)
