"""Products with the Hessian equal the Hessian that autograd writes out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.diagnostics.vectors import dot, flatten, norm, perturbed, split


def rosenbrock(x):
    return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum()


def small_net(dtype, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Mish(), nn.Linear(6, 5)).to(dtype)
    x, target = torch.randn(16, 4, dtype=dtype), torch.randint(5, (16,))
    return net, lambda: F.cross_entropy(net(x), target)


def dense_hessian(loss, params):
    grad = flatten(torch.autograd.grad(loss(), params, create_graph=True))
    return torch.stack([flatten(torch.autograd.grad(g, params, retain_graph=True)) for g in grad])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


def test_products_on_rosenbrocks_function_are_exact(generator):
    x = torch.randn(7, dtype=torch.float64, generator=generator, requires_grad=True)
    v = torch.randn(7, dtype=torch.float64, generator=generator)

    hessian = Hessian(lambda: rosenbrock(x), [x])

    expected = torch.autograd.functional.hessian(rosenbrock, x.detach()) @ v
    torch.testing.assert_close(hessian(v), expected, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(hessian.loss, rosenbrock(x.detach()))
    assert hessian.size == 7


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_products_on_a_network_are_the_dense_hessians_and_repeat(dtype, tolerance, generator):
    net, loss = small_net(dtype)
    params = list(net.parameters())
    v = torch.randn(sum(p.numel() for p in params), dtype=dtype, generator=generator)
    expected = dense_hessian(loss, params) @ v

    hessian = Hessian(loss, params)

    torch.testing.assert_close(hessian(v), expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(hessian(v), hessian(v))
    torch.testing.assert_close(hessian.gradient, flatten(torch.autograd.grad(loss(), params)))


def test_a_block_is_the_diagonal_block(generator):
    net, loss = small_net(torch.float64)
    params = list(net.parameters())
    sizes = [p.numel() for p in params]
    first, last = sum(sizes[:2]), sum(sizes[:4])
    v = torch.randn(last - first, dtype=torch.float64, generator=generator)

    product = Hessian(loss, params).block(2, 4)

    expected = dense_hessian(loss, params)[first:last, first:last] @ v
    torch.testing.assert_close(product(v), expected, rtol=1e-10, atol=1e-10)


def test_parameters_without_curvature_or_influence_have_zero_rows():
    used, linear, unused = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in "abc")

    hessian = Hessian(lambda: used.square().sum() + 3.0 * linear.sum(), [used, linear, unused])

    v = torch.arange(6, dtype=torch.float64)
    assert hessian(v).tolist() == [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    assert hessian.gradient.tolist() == [2.0, 2.0, 3.0, 3.0, 0.0, 0.0]
    assert hessian.block(1, 3)(v[:4]).tolist() == [0.0] * 4


def test_attention_can_be_differentiated_twice(generator):
    q = torch.randn(1, 2, 4, 8, generator=generator, requires_grad=True)

    def loss():
        return F.scaled_dot_product_attention(q, q, q, is_causal=True).square().sum()

    v = torch.randn(q.numel(), generator=generator)
    assert torch.isfinite(Hessian(loss, [q])(v)).all()


def test_no_gradient_is_left_behind():
    net, loss = small_net(torch.float32)

    hessian = Hessian(loss, list(net.parameters()))
    hessian(torch.ones(hessian.size))

    assert all(p.grad is None for p in net.parameters())


def test_weights_come_back_exactly_also_when_the_body_raises():
    weight = torch.rand(5)
    before = weight.clone()

    def body():
        assert torch.equal(weight, before + 1e8)
        raise RuntimeError("body")

    with pytest.raises(RuntimeError, match="body"), perturbed([weight], torch.full((5,), 1e8)):
        body()

    assert torch.equal(weight, before)


def test_splitting_undoes_flattening():
    tensors = [torch.rand(2, 3), torch.rand(()), torch.rand(4)]

    parts = split(flatten(tensors), tensors)

    assert all(torch.equal(a, b) for a, b in zip(parts, tensors, strict=True))


def test_norms_of_millions_of_numbers_are_right_in_single_precision():
    x = torch.full((4_000_000,), 0.1)

    exact = float(x.double().norm())

    assert float(norm(x)) == pytest.approx(exact, rel=1e-6)
    assert float(dot(x, x)) == pytest.approx(exact**2, rel=1e-6)
