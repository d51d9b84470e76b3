"""Mish and SimNorm equal the textbook forms, with derivatives of every order."""

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn import functional as F

from mbrl_flat.models.activations import mish, simnorm

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def textbook_mish(x):
    return x * torch.tanh(torch.nn.functional.softplus(x, threshold=1e9))


def points():
    return torch.cat([torch.linspace(-30.0, 19.0, 401), torch.zeros(1)]).double()


def test_mish_has_the_textbook_value_with_and_without_a_gradient():
    x = points()

    torch.testing.assert_close(mish(x), F.mish(x), **EXACT)
    torch.testing.assert_close(mish(x.clone().requires_grad_()).detach(), F.mish(x), **EXACT)


def test_three_derivatives_of_mish_are_those_of_the_textbook_form():
    x = points().requires_grad_()

    got, expected = mish(x), textbook_mish(x)
    for _ in range(3):
        (got,) = grad(got.sum(), x, create_graph=True)
        (expected,) = grad(expected.sum(), x, create_graph=True)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_mish_passes_first_and_second_order_finite_differences():
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_()

    assert gradcheck(mish, (x,))
    assert gradgradcheck(mish, (x,))


def test_the_first_derivative_is_the_same_whether_or_not_it_is_differentiated_again():
    x = points().requires_grad_()

    (once,) = grad(mish(x).sum(), x)
    (twice,) = grad(mish(x).sum(), x, create_graph=True)

    torch.testing.assert_close(once, twice.detach(), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mish_of_large_numbers_is_the_number_or_zero(dtype):
    x = torch.tensor([20.0, 21.0, 100.0, 1e6, -200.0, -1e6], dtype=dtype, requires_grad=True)

    y = mish(x)
    y.sum().backward()

    expected = torch.tensor([20.0, 21.0, 100.0, 1e6, 0.0, 0.0], dtype=dtype)
    slope = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], dtype=dtype)
    torch.testing.assert_close(y.detach(), expected)
    torch.testing.assert_close(x.grad, slope, rtol=1e-6, atol=1e-6)


def test_mish_leaves_its_input_alone_whatever_its_layout():
    x = torch.randn(4, 6, dtype=torch.float64).T
    before = x.clone()

    without = mish(x)
    with_gradient = mish(x.requires_grad_())

    assert torch.equal(x, before)
    torch.testing.assert_close(without, F.mish(before), **EXACT)
    torch.testing.assert_close(with_gradient, F.mish(before), **EXACT)


def test_compiled_code_is_given_plain_operations_with_the_textbook_value_and_slope(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x = points().requires_grad_()

    (slope,) = grad(mish(x).sum(), x)

    torch.testing.assert_close(mish(x), F.mish(x), **EXACT)
    torch.testing.assert_close(slope, grad(textbook_mish(x).sum(), x)[0], rtol=1e-9, atol=1e-11)


def test_a_hessian_vector_product_through_mish_is_that_through_the_textbook_form():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 4, generator=generator).double().requires_grad_()
    x = torch.randn(7, 4, generator=generator).double()
    v = torch.randn(4, 4, generator=generator).double()

    def product(activation):
        loss = activation(activation(x @ weight) @ weight).square().mean()
        (g,) = grad(loss, weight, create_graph=True)
        return grad((g * v).sum(), weight)[0]

    torch.testing.assert_close(product(mish), product(textbook_mish), rtol=1e-10, atol=1e-12)


def test_simnorm_is_a_softmax_over_strided_members():
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0)).double()

    y = simnorm(x, 4)

    for group in range(3):
        members = [member * 3 + group for member in range(4)]
        torch.testing.assert_close(y[..., members], torch.softmax(x[..., members], -1), **EXACT)


def test_simnorm_equals_neighbouring_groups_after_a_permutation():
    """The published form takes neighbours; feature i * V + j there is feature j * G + i here."""
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)).double()
    place = torch.arange(24).reshape(8, 3).T.flatten()

    published = torch.softmax(x[:, place].unflatten(-1, (3, 8)), -1).flatten(-2)

    torch.testing.assert_close(simnorm(x, 8)[:, place], published, **EXACT)


def test_groups_lie_on_simplices_and_a_shift_of_a_group_changes_nothing():
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).double()
    shift = torch.tensor([3.0, -200.0]).double().repeat(8)

    y = simnorm(x, 8)

    torch.testing.assert_close(y.unflatten(-1, (8, 2)).sum(-2), torch.ones(5, 2).double(), **EXACT)
    assert (y > 0).all()
    torch.testing.assert_close(simnorm(x + shift, 8), y, rtol=1e-10, atol=1e-12)


def test_simnorm_passes_first_and_second_order_finite_differences():
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)).double().requires_grad_()

    assert gradcheck(lambda x: simnorm(x, 3), (x,))
    assert gradgradcheck(lambda x: simnorm(x, 3), (x,))
