"""Mish and SimNorm in the forms that cost least on a CPU, equal to the textbook ones."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mbrl_flat.models import kernels


def _mish_slope(x: Tensor) -> Tensor:
    """Derivative of mish, built from differentiable operations."""
    e = torch.exp(x.clamp(max=20.0))
    n = e * (e + 2.0)
    return n / (n + 2.0) + x * (4.0 * e * (e + 1.0)) / (n + 2.0).square()


class _Mish(torch.autograd.Function):
    """Mish with one exponential, and its slope computed while that is available.

    The backward pass is one product. If it has to be differentiated in turn (Hessian-vector
    products), it is rebuilt from the input, so derivatives of every order are right.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        e = x.clamp(max=20.0).exp_()
        n = (e + 2.0).mul_(e)
        inverse = (n + 2.0).reciprocal_()
        gate = n.mul_(inverse)
        if ctx.needs_input_grad[0]:
            slope = e.addcmul_(e, e).mul_(4.0).mul_(inverse).mul_(inverse).mul_(x).add_(gate)
            ctx.save_for_backward(x, slope)
        return gate.mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, slope = ctx.saved_tensors
        return grad * (_mish_slope(x) if torch.is_grad_enabled() else slope)


def mish(x: Tensor) -> Tensor:
    r"""Mish, ``x tanh(softplus(x))``, elementwise, any shape.

    Written as ``x n / (n + 2)`` with ``n = e (e + 2)``, ``e = exp(min(x, 20))``: one exponential
    where the textbook form takes an exponential, a logarithm and a hyperbolic tangent.

    Args:
        x: Input of any shape; every entry is treated alike.

    Returns:
        Same shape.

    References:
        Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", arXiv:1908.08681.
    """
    if torch.compiler.is_compiling():
        # The compiler fuses the passes, here and in the backward pass that it derives.
        e = torch.exp(x.clamp(max=20.0))
        n = e * (e + 2.0)
        return x * (n / (n + 2.0))
    if torch.is_grad_enabled() and x.requires_grad:
        return _Mish.apply(x)  # pyright: ignore[reportReturnType]
    e = x.clamp(max=20.0).exp_()
    n = (e + 2.0).mul_(e)
    return e.copy_(n).add_(2.0).reciprocal_().mul_(n).mul_(x)


def simnorm(x: Tensor, size: int) -> Tensor:
    """Softmax within groups of ``size`` features: a latent that lies on simplices.

    Feature ``j * (D / size) + i`` is member j of group i, so the softmax runs over an axis that
    vectorizes. Compared with groups of neighbours this is a fixed permutation of the features.

    Args:
        x: ``[..., D]`` with ``D`` divisible by ``size``.
        size: Members of a group.

    Returns:
        Non-negative features ``[..., D]``; each of the ``D / size`` groups sums to one.

    References:
        Lavoie et al., "Simplicial Embeddings", arXiv:2204.00616; TD-MPC2, Section 3.1.
    """
    return x.unflatten(-1, (size, -1)).softmax(-2).flatten(-2)


def norm_activation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    simnorm_size: int | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Apply LayerNorm over the last dimension, then Mish or SimNorm; fused where that is possible.

    Args:
        x: ``[..., D]``, or ``[K, R, D]`` for K members with parameters of their own.
        weight: ``[D]`` or ``[K, D]``.
        bias: Shift of the normalised features, of the shape of ``weight``.
        simnorm_size: Members of a SimNorm group; None for Mish.
        eps: Added to the variance.

    Returns:
        Same shape as ``x``.
    """
    reference = partial(_norm_activation, simnorm_size=simnorm_size, eps=eps)
    if kernels.usable(x, weight, bias):
        size = simnorm_size or 0
        return kernels.norm_activation(x, weight, bias, size=size, eps=eps, reference=reference)
    return reference(x, weight, bias)


def _norm_activation(
    x: Tensor, weight: Tensor, bias: Tensor, *, simnorm_size: int | None, eps: float
) -> Tensor:
    shape = x.shape[-1:]
    if weight.ndim == 1:
        x = F.layer_norm(x, shape, weight, bias, eps)
    else:
        # One fused call a member: its backward pass also sums the affine gradients in one sweep.
        rows = zip(x.unbind(), weight.unbind(), bias.unbind(), strict=True)
        x = torch.stack([F.layer_norm(one, shape, w, b, eps) for one, w, b in rows])
    return mish(x) if simnorm_size is None else simnorm(x, simnorm_size)
