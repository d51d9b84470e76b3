"""Hopfield energy: brute force, autograd, fixed points, and its link to smoothed densities."""

import math

import numpy as np
import pytest
import torch

from mbrl_flat.data.hopfield_energy import (
    attention,
    energy,
    retrieve,
    smoothed_energy,
)
from mbrl_flat.errors import UserError
from mbrl_flat.studies.hopfield.forgetting import cluster_with_outlier


@pytest.fixture
def memories():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def points():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_energy_is_its_definition(memories, points):
    values = energy(points, memories, beta=1.7)

    for x, value in zip(points, values, strict=True):
        total = sum(math.exp(1.7 * float(x @ xi)) for xi in memories)
        np.testing.assert_allclose(value, 0.5 * float(x @ x) - math.log(total) / 1.7, rtol=1e-12)


def test_a_retrieval_step_is_a_gradient_step_of_length_one(memories, points):
    x = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x, memories, beta=2.0).sum(), x)

    moved = attention(points, memories, beta=2.0) @ memories

    torch.testing.assert_close(moved, points - gradient, rtol=1e-12, atol=1e-12)


def test_fixed_points_are_stationary_and_stable_where_the_multiplier_says_so():
    patterns = cluster_with_outlier(num_cluster=12, size=50, overlap=0.35)

    fixed = retrieve(patterns, patterns, beta=8.0)

    residual = attention(fixed, patterns, beta=8.0) @ patterns - fixed
    assert residual.abs().max() < 1e-10
    share = attention(fixed, patterns, beta=8.0)
    second = torch.einsum("nm,md,me->nde", share, patterns, patterns)
    derivative = 8.0 * (second - fixed.unsqueeze(-1) * fixed.unsqueeze(-2))
    assert (torch.linalg.eigvalsh(derivative)[..., -1] < 1.0).all()
    nudged = fixed + 1e-3 * torch.randn(fixed.shape, dtype=torch.float64)
    torch.testing.assert_close(retrieve(nudged, patterns, beta=8.0), fixed, atol=1e-9, rtol=0.0)


def test_energies_of_the_tractable_geometry_are_the_known_ones():
    patterns = cluster_with_outlier(num_cluster=12, size=50, overlap=0.35)

    at_patterns = energy(patterns, patterns, beta=8.0)
    at_fixed_points = energy(retrieve(patterns, patterns, beta=8.0), patterns, beta=8.0)

    np.testing.assert_allclose(at_patterns[[0, -1]], [-0.50740, -0.50050], atol=5e-6)
    np.testing.assert_allclose(at_fixed_points[[0, -1]], [-0.50923, -0.50051], atol=5e-6)


def test_for_memories_of_length_one_it_is_the_smoothed_energy_and_a_constant(memories, points):
    scale = 0.6
    memories = torch.nn.functional.normalize(memories, dim=-1)

    hopfield = energy(points, memories, beta=1.0 / scale**2)
    smoothed = smoothed_energy(points, memories, scale=scale)

    constant = 0.5 + scale**2 * math.log(len(memories))
    torch.testing.assert_close(hopfield, smoothed - constant)


def test_the_smoothed_energy_is_minus_the_scaled_log_of_the_kernel_mean(memories, points):
    kernel = torch.exp(-torch.cdist(points, memories).square() / (2.0 * 0.5**2)).mean(1)

    torch.testing.assert_close(
        smoothed_energy(points, memories, scale=0.5), -0.25 * kernel.log(), rtol=1e-9, atol=1e-9
    )


def test_leaving_a_sample_out_is_removing_it(memories):
    index = torch.arange(len(memories))

    values = smoothed_energy(memories, memories, scale=0.8, leave_out=index)

    for i in range(len(memories)):
        others = memories[index != i]
        alone = smoothed_energy(memories[i : i + 1], others, scale=0.8)
        torch.testing.assert_close(values[i : i + 1], alone)


def test_without_leaving_out_ranks_collapse_at_a_small_scale(memories):
    index = torch.arange(len(memories))

    with_self = smoothed_energy(memories, memories, scale=0.05)
    without = smoothed_energy(memories, memories, scale=0.05, leave_out=index)

    assert with_self.max() - with_self.min() < 1e-12
    assert without.max() - without.min() > 0.1


def test_storing_a_pattern_twice_lowers_its_energy_by_log_two_over_beta(memories):
    beta = 200.0
    normal = memories / memories.norm(dim=1, keepdim=True)
    doubled = torch.cat([normal, normal[:1]])

    drop = energy(normal[:1], normal, beta=beta) - energy(normal[:1], doubled, beta=beta)

    np.testing.assert_allclose(drop.item(), math.log(2.0) / beta, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: energy(m, m, beta=0.0), "beta must be above 0"),
        (lambda m: energy(m, m[:0], beta=1.0), "at least one memory"),
        (lambda m: smoothed_energy(m, m, scale=-1.0), "scale of the smoothed energy"),
        (
            lambda m: smoothed_energy(m[:1], m[:1], scale=1.0, leave_out=torch.tensor([0])),
            "at least one sample",
        ),
        (lambda m: retrieve(m, m, beta=1.0, max_steps=1), "did not settle"),
    ],
)
def test_what_cannot_be_computed_is_refused(memories, call, sentence):
    with pytest.raises(UserError, match=sentence):
        call(memories)
