"""The tangent kernel of a linear model in closed form, and its link to the Gauss-Newton matrix."""

import numpy as np
import torch
from torch import nn

from mbrl_flat.studies.edge_of_stability.curvature import CurvatureTracker
from mbrl_flat.studies.edge_of_stability.kernel import (
    kernel_distance,
    kernel_velocity,
    tangent_kernel,
)


def test_the_kernel_of_a_linear_model_is_the_gram_matrix_of_its_inputs():
    model = nn.Linear(4, 1, bias=False).double()
    inputs = torch.randn(6, 4).double()

    kernel = tangent_kernel(model, inputs)

    torch.testing.assert_close(kernel, inputs @ inputs.mT)


def test_at_interpolation_its_largest_eigenvalue_is_the_sharpness():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    inputs = torch.randn(8, 3).double()
    targets = model(inputs).detach()

    def loss():
        return 0.5 * (model(inputs) - targets).square().sum(-1).mean()

    sharpness = CurvatureTracker(loss, list(model.parameters()), tolerance=1e-10)().sharpness
    top = torch.linalg.eigvalsh(tangent_kernel(model, inputs))[-1] / len(inputs)

    np.testing.assert_allclose(top.item(), sharpness, rtol=1e-8)


def test_distance_ignores_scale_and_velocity_does_not():
    kernel = torch.tensor([[2.0, 1.0], [1.0, 3.0]])

    assert abs(kernel_distance(kernel, 5.0 * kernel)) < 1e-6
    np.testing.assert_allclose(kernel_velocity(kernel, 1.5 * kernel), 0.5, rtol=1e-6)
    crossed = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(
        kernel_distance(kernel, crossed), 1.0 - 2.0 / np.sqrt(15.0 * 2.0), rtol=1e-6
    )
