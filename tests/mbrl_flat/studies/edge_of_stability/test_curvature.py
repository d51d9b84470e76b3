"""Sharpness and its gradient against dense Hessians, Euler's identity and finite differences."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mbrl_flat.diagnostics.vectors import flatten, split
from mbrl_flat.studies.edge_of_stability.curvature import (
    CurvatureTracker,
    drift,
    sharpness_gradient,
)
from mbrl_flat.studies.models import Perceptron, normalised_weights


def move_along(params, direction):
    vector_to_parameters(parameters_to_vector(params) + direction, params)


def small_network(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    inputs, targets = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    params = list(model.parameters())
    return params, lambda: 0.5 * (model(inputs) - targets).square().sum(-1).mean()


def dense_sharpness(loss, params):
    grads = flatten(torch.autograd.grad(loss(), params, create_graph=True))
    rows = [
        flatten(torch.autograd.grad(grads[i], params, retain_graph=True)) for i in range(len(grads))
    ]
    return torch.linalg.eigvalsh(torch.stack(rows))[-1].item()


@pytest.mark.parametrize("seed", range(3))
def test_the_tracked_sharpness_is_that_of_the_dense_hessian(seed):
    params, loss = small_network(seed)
    tracker = CurvatureTracker(loss, params, seed=seed, tolerance=1e-6, max_iterations=60)

    for _ in range(2):
        here = tracker()
        np.testing.assert_allclose(here.sharpness, dense_sharpness(loss, params), rtol=1e-6)
        move_along(params, -0.1 * here.gradient)


def test_measuring_leaves_the_weights_as_they_are():
    params, loss = small_network(0)
    before = [p.detach().clone() for p in params]
    tracker = CurvatureTracker(loss, params)

    drift(loss, params, tracker())

    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("seed", range(3))
def test_the_sharpness_gradient_is_that_of_finite_differences(seed):
    params, loss = small_network(seed)
    tracker = CurvatureTracker(loss, params, tolerance=1e-9, max_iterations=60)
    direction = torch.randn(sum(p.numel() for p in params), dtype=torch.float64)

    slope = sharpness_gradient(loss, params, tracker().top) @ direction
    step = 1e-5
    move_along(params, step * direction)
    above = dense_sharpness(loss, params)
    move_along(params, -2.0 * step * direction)
    below = dense_sharpness(loss, params)

    np.testing.assert_allclose(slope.item(), (above - below) / (2.0 * step), rtol=1e-5)


def test_kappa_of_a_homogeneous_loss_follows_euler():
    """L is of degree 6 in the weights, so its Hessian is of degree 4: theta . grad S = 4 S."""
    weights = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.1, 0.7, -0.9)]

    def loss():
        return (weights[0] * weights[1] * weights[2]).square()

    here = CurvatureTracker(loss, weights, tolerance=1e-12)()
    terms = drift(loss, weights, here)

    np.testing.assert_allclose(terms.kappa, 4.0 * here.sharpness, rtol=1e-9)


def test_kappa_of_a_scale_invariant_loss_is_minus_two_sharpnesses():
    torch.manual_seed(0)
    weight = torch.randn(6, dtype=torch.float64, requires_grad=True)
    inputs, targets = torch.randn(10, 6).double(), torch.randn(10).double()

    def loss():
        return (inputs @ (weight / weight.norm()) - targets).square().mean()

    here = CurvatureTracker(loss, [weight], tolerance=1e-12)()
    terms = drift(loss, [weight], here)

    np.testing.assert_allclose(terms.kappa, -2.0 * here.sharpness, rtol=1e-8)
    assert terms.cosine < 0.0


def test_weights_ahead_of_a_normalisation_have_minus_two_sharpnesses_times_their_share():
    torch.manual_seed(0)
    model = Perceptron(3, (6, 5), 2, norm="layer", activation="tanh").double()
    for layer in model:
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 0.0
    inputs, targets = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    params, ahead = list(model.parameters()), normalised_weights(model)
    normalised = torch.tensor([any(p is q for q in ahead) for p in params])

    def loss():
        return 0.5 * (model(inputs) - targets).square().sum(-1).mean()

    here = CurvatureTracker(loss, params, tolerance=1e-12, max_iterations=100)()
    terms = drift(loss, params, here)
    parts = split(here.top.square(), params)
    share = torch.stack([part.sum() for part in parts])[normalised].sum()

    assert 0.0 < share < 1.0
    np.testing.assert_allclose(
        terms.kappa_by_tensor[normalised].sum(), -2.0 * here.sharpness * share, rtol=1e-6
    )
    np.testing.assert_allclose(terms.kappa_by_tensor.sum(), terms.kappa, rtol=1e-10)


def test_the_drift_predicts_how_a_small_step_changes_the_sharpness():
    params, loss = small_network(1)
    weight_decay, step = 0.05, 1e-5
    tracker = CurvatureTracker(loss, params, tolerance=1e-9, max_iterations=60)
    here = tracker()
    terms = drift(loss, params, here)
    before = dense_sharpness(loss, params)

    weights = flatten([p.detach() for p in params])
    move_along(params, -step * (here.gradient + weight_decay * weights))
    after = dense_sharpness(loss, params)

    predicted = terms.sharpening - weight_decay * terms.kappa
    np.testing.assert_allclose((after - before) / step, predicted, rtol=1e-3)
