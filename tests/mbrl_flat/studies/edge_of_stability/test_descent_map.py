"""Simulated maps of descent against the closed form."""

import numpy as np
import pytest

from mbrl_flat.optim.methods.vgd import threshold
from mbrl_flat.studies.edge_of_stability.descent_map import descent_probability, simulated_threshold


@pytest.mark.parametrize(("variance", "samples"), [(1e-3, 1), (1e-1, 4)])
def test_the_simulated_threshold_is_that_of_the_formula(variance, samples):
    found = simulated_threshold(
        variance, lr=0.1, num_samples=samples, draws=200_000, rng=np.random.default_rng(0)
    )

    exact = threshold(lr=0.1, gradient_squared=1.0, sigma=variance**0.5, num_samples=samples)
    np.testing.assert_allclose(found, exact, rtol=0.02)


def test_without_noise_every_step_below_the_edge_descends_and_none_above():
    share = descent_probability(
        np.array([1.0, 19.0, 21.0]),
        np.array([0.0]),
        lr=0.1,
        num_samples=1,
        draws=3,
        rng=np.random.default_rng(0),
    )

    np.testing.assert_array_equal(share[:, 0], [1.0, 1.0, 0.0])


def test_noise_makes_descent_less_likely():
    share = descent_probability(
        np.array([15.0]),
        np.array([1e-4, 1e-2, 1.0]),
        lr=0.1,
        num_samples=1,
        draws=4000,
        rng=np.random.default_rng(0),
    )

    assert share[0, 0] > share[0, 1] > share[0, 2]
