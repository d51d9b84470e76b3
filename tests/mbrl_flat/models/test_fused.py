"""Networks in one call each way; in float64 they go through torch, which is the oracle."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from mbrl_flat.models import fused, kernels
from mbrl_flat.models.ensemble import EnsembleMLP
from mbrl_flat.models.mlp import MLP

HEADS = torch.tensor([3, 1])
CASES = {
    "linear end": (lambda: MLP(30, [64], 11), lambda net, x: net(x)),
    "simnorm end": (lambda: MLP(30, [64, 48], 32, simnorm_size=8), lambda net, x: net(x)),
    "all of five": (lambda: EnsembleMLP(5, 30, [64, 48], 11), lambda net, x: net(x)),
    "two of five": (lambda: EnsembleMLP(5, 30, [64, 48], 11), lambda net, x: net(x, HEADS)),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=CASES)
def case(request):
    """A network, its copy in float64, and how to call them."""
    make, call = CASES[request.param]
    torch.manual_seed(0)
    net = make()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net, deepcopy(net).double(), call


def assert_close(ours, exact):
    bound = 2e-6 * float(exact.detach().abs().max())
    torch.testing.assert_close(ours.double(), exact, rtol=0.0, atol=bound)


def test_values_and_gradients_equal_torchs_to_rounding(case, monkeypatch):
    net, exact, call = case
    x = torch.randn(7, 5, 30, requires_grad=True)
    calls = []
    run = kernels.call
    monkeypatch.setattr(kernels, "call", lambda name, *a: calls.append(name) or run(name, *a))

    y = call(net, x)
    expected = call(exact, x64 := x.detach().double().requires_grad_())
    grad = torch.randn_like(y)
    grads = torch.autograd.grad(y, [x, *net.parameters()], grad)
    wanted = torch.autograd.grad(expected, [x64, *exact.parameters()], grad.double())

    assert_close(y, expected)
    for ours, theirs in zip(grads, wanted, strict=True):
        assert_close(ours, theirs)
    with torch.no_grad():
        assert torch.equal(call(net, x), y)
    assert calls == ["networks_forward", "networks_backward", "networks_forward"]


def test_hessian_vector_products_equal_torchs_to_rounding(case):
    net, exact, call = case
    x = torch.randn(7, 30)
    direction = [torch.randn_like(p) for p in net.parameters()]

    def product(net, x, direction):
        params = list(net.parameters())
        grads = torch.autograd.grad(call(net, x).square().sum(), params, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(grads, direction, strict=True))
        return torch.autograd.grad(along, params)

    ours = product(net, x, direction)
    theirs = product(exact, x.double(), [v.double() for v in direction])
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


def test_frozen_weights_get_no_gradient_and_the_input_gets_the_same(case):
    net, _, call = case
    x = torch.randn(7, 30, requires_grad=True)
    whole = torch.autograd.grad(call(net, x).sum(), x)[0]

    net.requires_grad_(False)
    call(net, x).sum().backward()

    assert torch.equal(x.grad, whole)
    assert all(p.grad is None for p in net.parameters())


def test_a_mask_multiplies_the_first_linear_output_forward_and_backward():
    weight, bias = torch.randn(6, 4, requires_grad=True), torch.randn(6, requires_grad=True)
    gain, shift = torch.rand(6) + 0.5, torch.randn(6)
    x, mask = torch.randn(5, 4), torch.tensor([0.0, 2.0]).repeat(15).view(5, 6)
    layers = [
        fused.Layer(weight, bias, gain, shift, 0),
        fused.Layer(torch.eye(6), torch.zeros(6)),
    ]

    y = fused.networks(x, layers, mask=mask)

    expected = F.mish(F.layer_norm(F.linear(x, weight, bias) * mask, (6,), gain, shift))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(y.square().sum(), (weight, bias))
    for one, other in zip(
        ours, torch.autograd.grad(expected.square().sum(), (weight, bias)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_shared_left_half_is_computed_once_for_all_rows_of_its_group():
    net = MLP(30, [64, 48], 32, simnorm_size=8)
    left, right = torch.randn(3, 1, 20), torch.randn(3, 9, 10)

    pair = net.forward_pair(left, right)

    whole = net(torch.cat([left.expand(-1, 9, -1), right], -1))
    torch.testing.assert_close(pair, whole, rtol=1e-5, atol=1e-6)


def test_without_an_exported_product_torchs_operators_are_used(case, monkeypatch):
    net, _, call = case
    x = torch.randn(7, 30)
    y = call(net, x)

    monkeypatch.setattr(fused, "gemm", lambda: None)

    torch.testing.assert_close(call(net, x), y, rtol=1e-5, atol=1e-6)


def test_second_derivatives_of_a_network_that_feeds_itself(one_thread):
    """Each use counts once, also where the input depends on the same weights."""
    torch.manual_seed(0)
    network = MLP(3, [8], 3)
    x = torch.randn(5, 3)

    def value():
        return network(network(network(x))).square().sum()

    params = list(network.parameters())
    first = torch.autograd.grad(value(), params, create_graph=True)
    u, v = ([torch.randn_like(p) for p in params] for _ in "uv")

    def product(direction):
        along = sum((g * d).sum() for g, d in zip(first, direction, strict=True))
        return torch.autograd.grad(along, params, retain_graph=True)

    def dot(a, b):
        return sum(float((s * t).sum()) for s, t in zip(a, b, strict=True))

    assert dot(u, product(v)) == pytest.approx(dot(v, product(u)), rel=1e-3)


def test_either_blas_gives_the_same_network_to_rounding(case, monkeypatch):
    net, exact, call = case
    x = torch.randn(33, 30)
    chosen = {fused.gemm(), fused._of_torch(), fused._openblas()} - {None}

    for address in chosen:
        monkeypatch.setattr(fused, "gemm", lambda address=address: address)
        assert_close(call(net, x), call(exact, x.double()))


def test_openblas_multiplies_on_one_thread_alone(monkeypatch):
    monkeypatch.setattr(fused, "_openblas", lambda: 1)

    assert fused.gemm() == 1
    torch.set_num_threads(2)
    assert fused.gemm() == fused._of_torch()


def test_constant_columns_take_no_gradient_and_change_no_other():
    torch.manual_seed(0)
    net = EnsembleMLP(5, 30, [64, 48], 11)
    torch.nn.init.normal_(net.last.weight, std=0.3)
    x = torch.randn(7, 30, requires_grad=True)
    weights = torch.randn(2, 7, 11)

    def gradients(constant):
        value = (net(x, HEADS, constant=constant) * weights).sum()
        return torch.autograd.grad(value, [x, net.last.weight, net.hidden[0].weight])

    whole, *params = gradients(0)
    part, *same = gradients(24)

    assert_close(part[:, 24:], whole[:, 24:].double())
    assert not part[:, :24].any()
    assert all(torch.equal(a, b) for a, b in zip(params, same, strict=True))
