"""Curvature agrees with that of an independent library, curvlinops."""

import curvlinops
import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from mbrl_flat.diagnostics.gauss_newton import GaussNewton
from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.lanczos import lanczos, start_vector
from mbrl_flat.diagnostics.trace import hutchinson


@pytest.fixture
def problem():
    """Soft labels behind a normalised network.

    The oracle differentiates forward over reverse: that refuses Mish and SiLU, and through the
    weight of a layer norm it is wrong (torch 2.13; differences of the gradient side with ours, see
    ``test_second_derivatives.py``). So the norm has no weight here.
    """
    torch.manual_seed(0)
    norm = nn.LayerNorm(12, elementwise_affine=False)
    net = nn.Sequential(nn.Linear(6, 12), norm, nn.Tanh(), nn.Linear(12, 5)).double()
    x = torch.randn(32, 6, dtype=torch.float64)
    y = torch.randn(32, 5, dtype=torch.float64).softmax(-1)
    return net, x, y, nn.CrossEntropyLoss()


def oracle(kind, problem):
    net, x, y, loss = problem
    return getattr(curvlinops, kind)(net, loss, list(net.parameters()), [(x, y)])


def ours(problem):
    net, x, y, loss = problem
    return Hessian(lambda: loss(net(x), y), list(net.parameters()))


def test_products_are_the_oracles(problem):
    hessian, reference = ours(problem), oracle("HessianLinearOperator", problem)
    v = torch.randn(hessian.size, dtype=torch.float64)

    torch.testing.assert_close(hessian(v), reference @ v, rtol=1e-9, atol=1e-12)


def test_both_ends_of_the_spectrum_are_those_of_the_oracle_with_eigsh(problem):
    reference = oracle("HessianLinearOperator", problem).to_scipy()
    top = eigsh(reference, k=1, which="LA", return_eigenvectors=False)
    bottom = eigsh(reference, k=1, which="SA", return_eigenvectors=False)
    hessian = ours(problem)
    start = start_vector(hessian.size, generator=torch.Generator().manual_seed(0)).double()

    found = lanczos(hessian, start, max_iterations=80, tolerance=1e-5)

    assert found.lambda_max == pytest.approx(float(top[0]), rel=1e-6)
    assert found.lambda_min == pytest.approx(float(bottom[0]), rel=1e-6)


def test_the_trace_is_that_of_the_oracle_within_three_standard_errors(problem):
    reference = oracle("HessianLinearOperator", problem)
    size = reference.shape[0]
    exact = float(np.trace(np.asarray(reference.to_scipy() @ np.eye(size))))
    hessian = ours(problem)

    generator = torch.Generator().manual_seed(0)
    found = hutchinson(hessian, hessian.gradient, samples=200, generator=generator)

    assert abs(found.mean - exact) <= 3.0 * found.standard_error
    assert found.standard_error < 0.1 * abs(exact)


def test_gauss_newton_products_are_the_oracles(problem):
    net, x, y, loss = problem
    reference = oracle("GGNLinearOperator", problem)
    product = GaussNewton(lambda: net(x), lambda logits: loss(logits, y), list(net.parameters()))
    v = torch.randn(product.size, dtype=torch.float64)

    torch.testing.assert_close(product(v), reference @ v, rtol=1e-9, atol=1e-12)
