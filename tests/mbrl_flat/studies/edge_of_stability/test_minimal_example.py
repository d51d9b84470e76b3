"""The minimal example against autograd, a fine integrator, and the settings of its experiments."""

import numpy as np
import pytest
import torch

from mbrl_flat.errors import DivergedError, UserError
from mbrl_flat.studies.edge_of_stability.minimal_example import (
    MinimalExample,
    upward_crossings,
)


def population_loss(theta, model):
    alpha, beta1, beta2 = theta
    return 0.5 * model.l1 * (alpha * beta1) ** 2 + 0.5 * model.l2 * (alpha * beta2 - 1.0) ** 2


@pytest.mark.parametrize("seed", range(3))
def test_gradient_and_hessian_are_those_of_autograd(seed):
    model = MinimalExample(l1=1.3, l2=0.2)
    theta = np.random.default_rng(seed).normal(size=3)
    point = torch.tensor(theta, requires_grad=True)

    loss = population_loss(point, model)
    (gradient,) = torch.autograd.grad(loss, point)
    hessian = torch.autograd.functional.hessian(lambda p: population_loss(p, model), point)

    np.testing.assert_allclose(model.loss(theta), loss.item(), rtol=1e-14)
    np.testing.assert_allclose(model.gradient(theta), gradient.numpy(), rtol=1e-13)
    np.testing.assert_allclose(model.hessian(theta), hessian.numpy(), rtol=1e-13, atol=1e-15)


def test_the_loss_is_that_of_the_network_on_gaussian_inputs():
    model = MinimalExample(l1=2.0, l2=0.5)
    theta = np.array([0.7, 0.4, -0.3])
    inputs = np.random.default_rng(0).normal(size=(400_000, 2)) * np.sqrt([model.l1, model.l2])

    outputs = theta[0] * (inputs @ theta[1:])
    losses = 0.5 * (outputs - inputs[:, 1]) ** 2

    deviation = abs(losses.mean() - model.loss(theta))
    assert deviation < 4.0 * losses.std() / np.sqrt(len(losses))


def test_gradient_flow_conserves_the_invariant_and_ends_in_the_predicted_minimum():
    model = MinimalExample(l1=1.0, l2=0.2)
    start = np.array([0.5, 0.3, 0.4])

    path = model.flow(start, time=300.0, steps=6000)

    np.testing.assert_allclose(model.invariant(path), model.invariant(start), atol=1e-10)
    predicted = model.flow_solution_sharpness(start)
    np.testing.assert_allclose(model.sharpness(path[-1]), predicted, rtol=1e-6)
    assert model.loss(path[-1]) < 1e-12


def test_setting_a_hovers_at_the_edge_and_settles_at_two_over_eta():
    model = MinimalExample(l1=1.0, l2=0.001)

    path = model.descend(np.array([0.88, 0.01, 0.3]), lr=2.5, steps=12_000)

    sharpness = model.sharpness(path) * 2.5 / 2.0
    assert len(upward_crossings(sharpness, 1.0)) >= 8
    assert abs(sharpness[-1] - 1.0) < 0.01
    assert sharpness.max() < 1.1
    assert model.loss(path[-1]) < 1e-10
    # The flow's solution gets flatter in every burst and is where descent ends.
    flow = model.flow_solution_sharpness(path) * 2.5 / 2.0
    assert np.diff(flow).max() < 1e-5
    np.testing.assert_allclose(flow[-1], sharpness[-1], rtol=1e-3)


def test_setting_b_sharpens_bursts_once_and_converges_below_the_edge():
    model = MinimalExample(l1=1.0, l2=0.01)

    path = model.descend(np.array([0.2, 0.01, 0.2]), lr=2.5, steps=2000)

    sharpness = model.sharpness(path)
    assert len(upward_crossings(sharpness, 0.8)) == 1
    assert sharpness.max() > 0.99
    np.testing.assert_allclose(sharpness[-1], 0.7803, atol=2e-3)


def test_no_edge_is_reached_where_the_flow_ends_below_it():
    model = MinimalExample(l1=1.0, l2=0.01)
    start = np.array([0.5, 0.01, 0.1])
    predicted = model.flow_solution_sharpness(start)

    path = model.descend(start, lr=1.5, steps=20_000)

    assert predicted < 2.0 / 1.5
    assert len(upward_crossings(model.sharpness(path), 2.0 / 1.5)) == 0
    np.testing.assert_allclose(model.sharpness(path[-1]), predicted, rtol=5e-3)


def test_divergence_is_reported_with_its_step():
    model = MinimalExample(l1=1.0, l2=0.01)

    with pytest.raises(DivergedError, match=r"diverged at step \d+: lr=5\.0 is too large"):
        model.descend(np.array([0.2, 0.01, 0.2]), lr=5.0, steps=20_000)


def test_a_start_that_cannot_oscillate_is_refused():
    with pytest.raises(UserError, match="beta1 must not start at 0"):
        MinimalExample().descend(np.array([0.5, 0.0, 0.3]), lr=2.0, steps=10)


def test_variances_must_be_positive():
    with pytest.raises(UserError, match="must be above 0"):
        MinimalExample(l1=-1.0)


def test_the_stable_set_is_a_strip_that_descent_does_not_leave():
    model, lr = MinimalExample(l1=1.0, l2=0.05), 2.0
    inside = np.array([0.9, 0.0, 0.2])

    moved = inside - lr * model.gradient(inside)
    assert moved[1] == 0.0
    # No gradient along the top eigenvector.
    top = np.linalg.eigh(model.hessian(inside))[1][:, -1]
    np.testing.assert_allclose(top @ model.gradient(inside), 0.0, atol=1e-15)


def test_crossings_are_counted_upwards_only():
    values = np.array([0.0, 2.0, 0.5, 1.0, 3.0, 3.5, 1.0])

    np.testing.assert_array_equal(upward_crossings(values, 1.0), [1, 4])
