"""Noise of perturbations: its distribution, its stream, and C against NumPy."""

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from mbrl_flat.models import kernels
from mbrl_flat.optim.noise import HALF, Precision, fill_normal


def drawn(size, seed=0, **how):
    return fill_normal(torch.empty(size), torch.Generator().manual_seed(seed), **how)


def splitmix64(state):
    """One number of the published generator, in Python's integers."""
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@pytest.mark.parametrize("compiled", [True, False])
def test_noise_follows_the_published_equations(compiled, monkeypatch):
    monkeypatch.setattr("mbrl_flat.optim.noise.torch.empty", lambda *a, **k: torch.zeros((), **k))
    monkeypatch.setattr(torch.Tensor, "random_", lambda self, *a, **k: self.fill_(-3))
    with nullcontext() if compiled else kernels.turned_off():
        ours = fill_normal(torch.zeros(3 * HALF), torch.Generator())

    for block, j in ((0, 0), (0, HALF - 1), (1, 7)):
        count = block * HALF + j + 1
        z = splitmix64((-3 + count * 0x9E3779B97F4A7C15) % 2**64)
        u, v = ((z >> 40) + 1) / 2**24, (z % 2**24) / 2**24
        expected = np.sqrt(-2.0 * np.log(u)) * np.array(
            [np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)]
        )
        place = 2 * HALF * block + j
        assert float(ours[place]) == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
        if block == 0:
            assert float(ours[place + HALF]) == pytest.approx(expected[1], rel=1e-5, abs=1e-6)


def test_noise_is_standard_normal_and_its_entries_are_independent():
    """Over 40 keys the p-values and the standardised moments are themselves as they should be."""
    size = 200_000
    draws = [drawn(size, seed).double().numpy() for seed in range(40)]
    ends = [stats.kstest(d, "norm").pvalue for d in draws]
    lagged = [
        np.sqrt(size) * (d[lag:] * d[:-lag]).mean() for d in draws for lag in (1, HALF, 2 * HALF)
    ]
    between = [np.sqrt(size) * (a * b).mean() for a, b in pairwise(draws)]
    means = [np.sqrt(size) * d.mean() for d in draws]
    spreads = [np.sqrt(size / 2) * (d.var() - 1.0) for d in draws]

    assert stats.kstest(ends, "uniform").pvalue > 1e-3
    for standardised in (lagged, between, means, spreads):
        assert stats.kstest(standardised, "norm").pvalue > 1e-3


@pytest.mark.parametrize("size", [1, HALF, 2 * HALF + 1, 5001])
def test_numpy_draws_what_c_draws_up_to_rounding(size):
    curvature = torch.rand(size)
    for how in ({}, {"scale": 0.1, "precision": Precision(curvature, 0.3)}):
        ours = drawn(size, **how)
        with kernels.turned_off():
            theirs = drawn(size, **how)

        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_precision_scales_the_noise_entry_by_entry():
    curvature = torch.rand(700)

    ours = drawn(700, scale=0.5, precision=Precision(curvature, 0.2))

    torch.testing.assert_close(ours, 0.5 * drawn(700) / (curvature + 0.2).sqrt())


def test_noise_follows_from_the_state_of_the_generator_which_moves_on():
    generator = torch.Generator().manual_seed(3)
    first, state = fill_normal(torch.empty(100), generator), generator.get_state()
    second = fill_normal(torch.empty(100), generator)
    generator.set_state(state)

    assert torch.equal(second, fill_normal(torch.empty(100), generator))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_have_the_noise_of_torch(dtype):
    curvature = torch.rand(50, dtype=dtype)
    plain = torch.empty(50, dtype=dtype).normal_(
        0.0, 2.0, generator=torch.Generator().manual_seed(1)
    )

    ours = fill_normal(
        torch.empty(50, dtype=dtype),
        torch.Generator().manual_seed(1),
        scale=2.0,
        precision=Precision(curvature, 0.5),
    )

    torch.testing.assert_close(ours, plain * (curvature + 0.5).rsqrt())


def test_entries_do_not_depend_on_how_they_lie_in_memory():
    shape = (4, 5, 6, 7)
    strided = torch.empty(shape).to(memory_format=torch.channels_last)
    assert not strided.is_contiguous()

    ours = fill_normal(strided, torch.Generator().manual_seed(0))

    assert torch.equal(ours, drawn(shape))
