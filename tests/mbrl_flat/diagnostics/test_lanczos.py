"""Extreme eigenpairs of matrices whose spectrum is known."""

import math
from itertools import pairwise

import pytest
import torch

from mbrl_flat.diagnostics.lanczos import lanczos, start_vector


def with_spectrum(values, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    size = len(values)
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
    return matrix.to(dtype), basis.to(dtype)


def random_start(size, seed=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dtype=dtype, generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_both_ends_of_a_known_spectrum_are_found(seed):
    matrix, basis = with_spectrum([-7.0, -1.0, *([0.1 * i for i in range(20)]), 3.0, 5.0], seed)

    found = lanczos(matrix.__matmul__, random_start(24), max_iterations=24, tolerance=1e-9)

    assert found.converged
    assert found.lambda_max == pytest.approx(5.0, abs=1e-9)
    assert found.lambda_min == pytest.approx(-7.0, abs=1e-9)
    assert abs(float(found.top @ basis[:, -1])) == pytest.approx(1.0, abs=1e-9)
    assert abs(float(found.bottom @ basis[:, 0])) == pytest.approx(1.0, abs=1e-9)


def test_a_dominant_negative_eigenvalue_is_not_mistaken_for_the_largest():
    matrix, _ = with_spectrum([-100.0, *([1.0] * 10), 2.0])

    found = lanczos(matrix.__matmul__, random_start(12), max_iterations=12, tolerance=1e-9)

    assert found.lambda_max == pytest.approx(2.0, abs=1e-8)


def test_the_residual_is_that_of_the_returned_pair():
    matrix, _ = with_spectrum([float(i) for i in range(40)])

    found = lanczos(matrix.__matmul__, random_start(40), max_iterations=6, tolerance=0.0)

    actual = (matrix @ found.top - found.lambda_max * found.top).norm()
    assert found.residual == pytest.approx(float(actual), rel=1e-9)
    assert found.iterations == 6
    assert not found.converged


def test_the_largest_eigenvalue_is_never_overestimated_and_only_grows():
    matrix, _ = with_spectrum([0.5 * i for i in range(50)])

    estimates = [
        lanczos(matrix.__matmul__, random_start(50), max_iterations=k, tolerance=0.0).lambda_max
        for k in range(1, 20)
    ]

    assert all(a <= b + 1e-12 for a, b in pairwise(estimates))
    assert estimates[-1] <= 24.5 + 1e-12


def test_a_tolerance_on_the_residual_gives_its_square_in_the_eigenvalue():
    matrix, _ = with_spectrum([-10.0, *torch.linspace(-5.0, 5.0, 60).tolist(), 10.0])

    found = lanczos(matrix.__matmul__, random_start(62), max_iterations=60, tolerance=0.05)

    assert found.converged
    assert found.iterations < 30
    # Kato-Temple: the error is at most the squared residual over the gap.
    assert 10.0 - found.lambda_max <= found.residual**2 / (found.lambda_max - 5.0)


def test_a_small_negative_end_is_not_given_up_because_the_other_is_large():
    """A residual that is small next to 1000 says nothing of an eigenvalue of -20."""
    matrix, _ = with_spectrum([-20.0, *torch.linspace(0.0, 100.0, 60).tolist(), 1000.0])

    found = lanczos(matrix.__matmul__, random_start(62), max_iterations=60, tolerance=0.05)

    assert found.converged
    assert found.lambda_min == pytest.approx(-20.0, rel=0.01)


def test_the_previous_eigenvectors_save_iterations():
    values = [*torch.linspace(-1.0, 5.0, 200).tolist(), 5.5]
    matrix, _ = with_spectrum(values)
    drift, _ = with_spectrum([0.02 * v for v in values], seed=9)
    start = random_start(201)
    before = lanczos(matrix.__matmul__, start, max_iterations=201, tolerance=1e-3)
    moved = matrix + drift

    cold = lanczos(moved.__matmul__, start, max_iterations=201, tolerance=0.02)
    generator = torch.Generator().manual_seed(0)
    mixed = start_vector(201, generator=generator, previous=before.top + before.bottom)
    warm = lanczos(moved.__matmul__, mixed, max_iterations=201, tolerance=0.02)

    assert warm.converged
    assert cold.converged
    assert warm.iterations < cold.iterations


def test_a_stale_eigenvector_does_not_hide_a_sharper_direction():
    matrix = torch.diag(torch.tensor([1.0, 4.0, 2.0, 0.5], dtype=torch.float64))
    stale = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)

    locked = lanczos(matrix.__matmul__, stale, max_iterations=4, tolerance=1e-9)
    start = start_vector(4, generator=torch.Generator().manual_seed(0), previous=stale)
    found = lanczos(matrix.__matmul__, start, max_iterations=4, tolerance=1e-9)

    assert (locked.lambda_max, locked.iterations) == (1.0, 1)
    assert found.lambda_max == pytest.approx(4.0, abs=1e-9)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_it_stops_when_the_krylov_space_is_closed(scale):
    found = lanczos(lambda v: scale * v, random_start(50), max_iterations=50, tolerance=0.0)

    assert found.iterations == 1
    assert found.converged
    assert (found.lambda_max, found.lambda_min) == (pytest.approx(scale), pytest.approx(scale))
    assert found.residual == 0.0


def test_few_distinct_eigenvalues_take_as_many_products():
    matrix = torch.diag(torch.tensor([2.0] * 30 + [-1.0] * 30, dtype=torch.float64))

    found = lanczos(matrix.__matmul__, random_start(60), max_iterations=60, tolerance=1e-12)

    assert found.iterations == 2
    assert (found.lambda_max, found.lambda_min) == (pytest.approx(2.0), pytest.approx(-1.0))


def test_the_basis_stays_orthogonal_in_single_precision():
    matrix, _ = with_spectrum([1e-3 * i for i in range(299)] + [1e3], dtype=torch.float32)
    start = random_start(300, dtype=torch.float32)

    found = lanczos(matrix.__matmul__, start, max_iterations=40, tolerance=0.0)

    assert found.lambda_max == pytest.approx(1e3, rel=1e-5)
    # A basis that has lost its orthogonality shows eigenvalues more than once or beyond the ends.
    assert found.lambda_min >= -1e-2


def test_a_product_that_is_not_finite_gives_nan():
    found = lanczos(lambda v: v * math.inf, random_start(5))

    assert math.isnan(found.lambda_max)
    assert not found.converged


def test_less_than_one_iteration_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        lanczos(lambda v: v, random_start(5), max_iterations=0)


@pytest.mark.parametrize(("fewest", "found"), [(1, 100.0), (5, 400.0)])
def test_a_direction_that_became_the_sharper_one_takes_a_few_products_to_be_seen(fewest, found):
    """Of 200,000 the start has both old ends, and of each other a part in five thousand."""
    diagonal = torch.zeros(200_000)
    diagonal[0], diagonal[1], diagonal[2] = 100.0, 400.0, -50.0
    old = torch.zeros(200_000)
    old[0] = old[2] = 0.5**0.5
    start = start_vector(200_000, generator=torch.Generator().manual_seed(1), previous=old)

    spectrum = lanczos(
        lambda v: diagonal * v, start, max_iterations=12, min_iterations=fewest, tolerance=0.05
    )

    assert spectrum.converged
    assert spectrum.lambda_max == pytest.approx(found, rel=0.01)
