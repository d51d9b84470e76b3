"""Fused operators: torch's own operations in float64 are the oracle."""

import subprocess

import pytest
import torch
from torch.nn import functional as F

from mbrl_flat.models import kernels
from mbrl_flat.models.activations import norm_activation
from mbrl_flat.models.functional import TwoHot, two_hot_cross_entropy
from mbrl_flat.runtime import c_library

BOUNDS = TwoHot()


def textbook(x, weight, bias, size):
    normal = F.layer_norm(x, x.shape[-1:])
    if weight.ndim == 2:
        weight, bias = weight[:, None], bias[:, None]
    y = normal * weight + bias
    if size is None:
        return F.mish(y)
    return y.unflatten(-1, (size, -1)).softmax(-2).flatten(-2)


def decoded(logits):
    bins = torch.linspace(BOUNDS.low, BOUNDS.high, BOUNDS.num_bins, dtype=logits.dtype)
    mean = torch.softmax(logits, -1) @ bins
    return torch.sign(mean) * torch.expm1(mean.abs())


def entropy(logits, target):
    return -(BOUNDS.encode(target.to(logits)) * logits.log_softmax(-1)).sum(-1)


def assert_close_to_float64(ours, exact):
    """Within thirty units in the last place of the largest entry."""
    bound = 30 * torch.finfo(torch.float32).eps * float(exact.detach().abs().max())
    torch.testing.assert_close(ours.double(), exact, rtol=0.0, atol=bound)


SHAPES = [
    ((6, 64), (64,), None),
    ((6, 64), (64,), 8),
    ((2, 3, 5, 40), (40,), None),
    ((2, 3, 5, 40), (40,), 4),
    ((3, 7, 33), (3, 33), None),
    ((3, 1, 33), (3, 33), None),
    ((1, 1, 8), (8,), 8),
]


@pytest.mark.parametrize(("shape", "affine", "size"), SHAPES)
def test_normalisation_and_activation_equal_the_textbook_to_rounding(
    shape, affine, size, one_thread
):
    x = (3.0 * torch.randn(shape) + 1.0).requires_grad_()
    weight, bias = torch.randn(affine).requires_grad_(), torch.randn(affine).requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    grad = torch.randn(shape)
    assert kernels.usable(x, weight, bias)

    y = norm_activation(x, weight, bias, simnorm_size=size)
    expected = textbook(*exact, size)

    assert_close_to_float64(y, expected)
    grads = torch.autograd.grad(y, (x, weight, bias), grad)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    for ours, theirs in zip(grads, wanted, strict=True):
        assert_close_to_float64(ours, theirs)
    with torch.no_grad():
        assert torch.equal(norm_activation(x, weight, bias, simnorm_size=size), y)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_two_hot_outputs_equal_the_textbook_to_rounding(scale, one_thread):
    logits = (scale * torch.randn(5, 4, 3, 101)).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    target, grad = 50.0 * torch.randn(4, 3), torch.randn(5, 4, 3)

    for ours, theirs in (
        (BOUNDS.decode(logits), decoded(exact)),
        (BOUNDS.cross_entropy(logits, BOUNDS.position(target)), entropy(exact, target)),
    ):
        # The exponential of symexp magnifies the rounding of its argument, which is up to 10.
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=1e-5)
        got = torch.autograd.grad(ours, logits, grad)[0].double()
        wanted = torch.autograd.grad(theirs, exact, grad.double())[0]
        bound = 3e-5 * float(wanted.abs().max())
        torch.testing.assert_close(got, wanted, rtol=0.0, atol=bound)


def test_extreme_inputs_saturate_as_in_torch(one_thread):
    ones, zeros = torch.ones(4), torch.zeros(4)
    x = torch.tensor([[-1e4, 1e4, 0.0, 3.0], [1e15, 1e-30, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])

    for size in (None, 2):
        y = norm_activation(x, 100.0 * ones, zeros, simnorm_size=size)
        torch.testing.assert_close(y, textbook(x, 100.0 * ones, zeros, size), rtol=1e-5, atol=1e-6)

    logits = torch.zeros(2, 101)
    logits[0, 100], logits[1, 0] = 1e4, 1e4
    torch.testing.assert_close(
        BOUNDS.decode(logits), torch.tensor([1.0, -1.0]) * torch.expm1(torch.tensor(10.0))
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_visible_and_in_its_row(bad, one_thread):
    x = torch.randn(3, 16)
    x[1, 5] = bad
    weight, bias = torch.ones(16, requires_grad=True), torch.zeros(16, requires_grad=True)

    for size in (None, 4):
        y = norm_activation(x, weight, bias, simnorm_size=size)
        assert not y[1].isfinite().any()
        assert y[[0, 2]].isfinite().all()
        assert not torch.autograd.grad(y.sum(), weight)[0].isfinite().any()

    logits = torch.zeros(2, 101)
    logits[1, 7] = float("nan")
    assert BOUNDS.decode(logits).isnan().tolist() == [False, True]
    position = BOUNDS.position(torch.tensor([0.0, float("nan")]))
    assert BOUNDS.cross_entropy(torch.zeros(2, 101), position).isnan().tolist() == [False, True]


@pytest.mark.parametrize("size", [None, 4])
def test_second_derivatives_equal_those_of_torch(size, one_thread):
    weight = torch.randn(16, requires_grad=True)
    x, bias, direction = torch.randn(5, 16), torch.randn(16), torch.randn(16)

    def product(function, weight, x, bias, direction):
        loss = function(x, weight, bias).square().sum()
        grad = torch.autograd.grad(loss, weight, create_graph=True)[0]
        return torch.autograd.grad(grad @ direction, weight)[0]

    ours = product(lambda *a: norm_activation(*a, simnorm_size=size), weight, x, bias, direction)
    doubles = [t.detach().double() for t in (x, bias, direction)]
    exact = weight.detach().double().requires_grad_()
    assert_close_to_float64(ours, product(lambda *a: textbook(*a, size), exact, *doubles))


def test_second_derivatives_of_two_hot_outputs_equal_those_of_torch(one_thread):
    weight, direction = torch.randn(7, 101), torch.randn(7, 101)
    target = torch.randn(7)

    def product(outputs, weight, direction):
        weight = weight.requires_grad_()
        loss = outputs(weight).square().sum()
        grad = torch.autograd.grad(loss, weight, create_graph=True)[0]
        return torch.autograd.grad((grad * direction).sum(), weight)[0]

    position = BOUNDS.position(target)
    for ours, theirs in (
        (BOUNDS.decode, decoded),
        (lambda x: BOUNDS.cross_entropy(x, position), lambda x: entropy(x, target)),
    ):
        exact = product(theirs, weight.detach().double(), direction.double())
        bound = 1e-4 * float(exact.abs().max())
        got = product(ours, weight.detach(), direction).double()
        torch.testing.assert_close(got, exact, rtol=0.0, atol=bound)


def test_cross_entropy_takes_half_precision():
    logits, position = torch.randn(6, 101), BOUNDS.position(torch.randn(6))

    half = two_hot_cross_entropy(logits.bfloat16(), position)

    exact = two_hot_cross_entropy(logits.bfloat16().double(), (position[0], position[1].double()))
    torch.testing.assert_close(half.double(), exact, rtol=0.0, atol=0.05)


def test_many_threads_other_types_and_the_switch_go_through_torch(monkeypatch):
    x = torch.randn(3, 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert kernels.usable(x)
    assert not kernels.usable(x.double())
    assert not kernels.usable(x.bfloat16())
    assert not kernels.usable(x.to("meta"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert not kernels.usable(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setenv("MBRL_FLAT_KERNELS", "0")
    assert kernels.library.__wrapped__() is None


def test_a_compiler_that_fails_is_reported_and_torch_takes_over(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")

    assert kernels.library.__wrapped__() is None

    assert "running without fused operators" in capsys.readouterr().err
    assert list((tmp_path / "mbrl_flat").iterdir()) == []


def test_the_library_is_compiled_once(monkeypatch, tmp_path):
    first = c_library.build(kernels.SOURCES, tmp_path, "cc")
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: calls.append(a))

    assert c_library.build(kernels.SOURCES, tmp_path, "cc") == first
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
