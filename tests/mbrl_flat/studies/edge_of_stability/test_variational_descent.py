"""Descent of VGD on quadratics: closed form, simulation, and the published threshold."""

import numpy as np
import pytest

from mbrl_flat.optim.methods.vgd import threshold
from mbrl_flat.studies.edge_of_stability.descent_map import simulated_change

# Variance of the noise, samples, threshold at lr 0.1 and a squared gradient of 1.
TABLE = [
    (1e-3, 1, 15.95), (1e-3, 4, 18.43), (1e-3, 16, 19.53),
    (1e-2, 1, 10.00), (1e-2, 4, 13.65), (1e-2, 16, 16.95),
    (1e-1, 1, 5.28), (1e-1, 4, 7.86), (1e-1, 16, 11.21),
]  # fmt: skip


def expected_change(curvature, position, *, lr, sigma, num_samples):
    """Theorem 3.1 of arXiv:2506.12903, along each eigenvector."""
    gradient_squared = (curvature * position) ** 2
    noise = lr**2 * curvature**3 * np.square(sigma) / (2.0 * num_samples)
    return gradient_squared * (0.5 * lr**2 * curvature - lr) + noise


@pytest.mark.parametrize(("variance", "num_samples", "expected"), TABLE)
def test_thresholds_are_those_of_the_cubic(variance, num_samples, expected):
    limit = threshold(
        lr=0.1, gradient_squared=1.0, sigma=np.sqrt(variance), num_samples=num_samples
    )
    z = num_samples / variance
    roots = np.roots([1.0, 0.0, z, -2.0 * z / 0.1])
    (real,) = roots[np.abs(roots.imag) < 1e-9].real

    np.testing.assert_allclose(limit, real, rtol=1e-9)
    np.testing.assert_allclose(limit, expected, rtol=1e-3)


@pytest.mark.parametrize(("variance", "num_samples", "expected"), TABLE)
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_the_expected_loss_falls_below_the_threshold_and_rises_above(
    variance, num_samples, expected, factor
):
    del expected
    sigma = np.sqrt(variance)
    limit = threshold(lr=0.1, gradient_squared=1.0, sigma=sigma, num_samples=num_samples)
    curvature = np.array([factor * limit])

    change = expected_change(
        curvature, 1.0 / curvature, lr=0.1, sigma=sigma, num_samples=num_samples
    )

    assert (change.sum() > 0.0) == (factor > 1.0)


def test_the_simulation_agrees_with_the_expectation():
    curvature, position = np.array([4.0, 1.0, 0.2]), np.array([0.3, -0.8, 2.0])
    settings = {"lr": 0.3, "sigma": 0.4, "num_samples": 3}
    rng = np.random.default_rng(0)

    draws = simulated_change(curvature, position, draws=200_000, rng=rng, **settings)
    expected = expected_change(curvature, position, **settings).sum()

    assert abs(draws.mean() - expected) < 4.0 * draws.std() / np.sqrt(len(draws))


def test_without_noise_it_is_gradient_descent():
    curvature, position = np.array([3.0, 0.5]), np.array([1.0, -2.0])
    moved = position - 0.2 * curvature * position

    change = expected_change(curvature, position, lr=0.2, sigma=0.0, num_samples=1)

    np.testing.assert_allclose(change, 0.5 * curvature * (moved**2 - position**2), rtol=1e-12)
