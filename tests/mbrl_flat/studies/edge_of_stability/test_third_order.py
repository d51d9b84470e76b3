"""Third derivatives through normalisation layers against finite differences of second ones."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mbrl_flat.diagnostics.vectors import flatten
from mbrl_flat.studies.edge_of_stability.curvature import sharpness_gradient
from mbrl_flat.studies.edge_of_stability.third_order import ThriceDifferentiable

NORMS = {
    "layer": lambda: nn.LayerNorm(5),
    "group": lambda: nn.GroupNorm(1, 5),
    "batch": lambda: nn.BatchNorm1d(5),
    "batch in evaluation": lambda: nn.BatchNorm1d(5).eval(),
    "without weights": lambda: nn.LayerNorm(5, elementwise_affine=False),
}


def move_along(params, direction):
    vector_to_parameters(parameters_to_vector(params) + direction, params)


def network(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), NORMS[norm](), nn.Tanh(), nn.Linear(5, 2)).double()
    inputs, targets = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    return model, lambda: 0.5 * (model(inputs) - targets).square().sum(-1).mean()


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_of_a_rayleigh_quotient_is_that_of_finite_differences(norm):
    model, loss = network(norm)
    params = list(model.parameters())
    size = sum(p.numel() for p in params)
    vector, direction = torch.randn(size).double(), torch.randn(size).double()

    def rayleigh():
        grads = flatten(torch.autograd.grad(loss(), params, create_graph=True))
        return flatten(torch.autograd.grad(grads @ vector, params)) @ vector

    slope = sharpness_gradient(loss, params, vector) @ direction
    step = 1e-5
    move_along(params, step * direction)
    above = rayleigh()
    move_along(params, -2.0 * step * direction)

    np.testing.assert_allclose(slope, (above - rayleigh()) / (2.0 * step), rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_composed_layers_give_what_fused_ones_do(norm):
    _, loss = network(norm)

    fused = loss()
    with ThriceDifferentiable():
        composed = loss()

    torch.testing.assert_close(composed, fused, rtol=1e-12, atol=0.0)
