"""Regressions that need no data: a Chebyshev polynomial, and a linear map.

References:
    Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability",
    ICLR 2021, arXiv:2103.00065, for both.
"""

import torch
from torch import Tensor

from mbrl_flat.errors import UserError


def chebyshev(
    degree: int, count: int, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Points evenly spaced in [-1, 1] with the Chebyshev polynomial of the first kind there.

    Args:
        degree: ``k`` of ``T_k``, at least 0.
        count: Number of points, at least 2.
        dtype: Of the result; it is computed in float64.

    Returns:
        Inputs ``[N, 1]`` and targets ``[N, 1]``.

    Raises:
        UserError: If either number is too small.
    """
    if degree < 0 or count < 2:
        raise UserError(f"A degree of at least 0 and 2 points are needed: {degree}, {count}.")
    x = torch.linspace(-1.0, 1.0, count, dtype=torch.float64)[:, None]
    y = torch.cos(degree * torch.acos(x.clamp(-1.0, 1.0)))
    return x.to(dtype), y.to(dtype)


def deep_linear(
    count: int, dimension: int, *, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Whitened inputs and their images under a Gaussian matrix ``A``: ``Y = X A^T``.

    Args:
        count: Number of examples, at least ``dimension``.
        dimension: Of inputs and targets.
        seed: Determines both.
        dtype: Of the result; it is computed in float64.

    Returns:
        Inputs ``[N, D]`` with ``X^T X = N I``, and targets ``[N, D]``.

    Raises:
        UserError: If there are fewer examples than dimensions.
    """
    if count < dimension or dimension < 1:
        raise UserError(f"Need at least as many examples as dimensions: {count} < {dimension}.")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    x = torch.linalg.qr(noise).Q * count**0.5
    matrix = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return x.to(dtype), (x @ matrix.mT).to(dtype)
