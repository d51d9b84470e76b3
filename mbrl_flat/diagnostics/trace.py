r"""The trace of a matrix that is known by its products alone.

.. math::
    \mathrm{Tr}\,A = E[v^\top A v], \qquad v_i = \pm 1 \text{ with equal odds}

The variance of one draw is twice the sum of the squared off-diagonal entries; of a diagonal matrix
every draw is exact.

References:
    Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix", Communications in
    Statistics 19(2), 1990.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mbrl_flat.diagnostics.lanczos import Product
from mbrl_flat.diagnostics.vectors import dot
from mbrl_flat.runtime.interrupts import check_interrupt


class Estimate(NamedTuple):
    """A mean over draws, and how far it may be off."""

    mean: float
    standard_error: float
    """NaN for a single draw."""


def estimate(draws: list[float]) -> Estimate:
    """Mean and standard error of independent draws."""
    values = torch.tensor(draws, dtype=torch.float64)
    spread = float(values.std()) if len(draws) > 1 else float("nan")
    return Estimate(float(values.mean()), spread / len(draws) ** 0.5)


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent fair signs ``[n]``, drawn on the CPU, of the type and device of ``like``."""
    bits = torch.randint(2, (like.numel(),), generator=generator, dtype=torch.int8)
    return (2 * bits - 1).to(like)


def hutchinson(
    product: Product, like: Tensor, *, samples: int, generator: torch.Generator
) -> Estimate:
    """Estimate the trace.

    Args:
        product: Multiplies the matrix by a vector ``[n]``, such as a Hessian.
        like: Any vector ``[n]`` of the type and device that it takes.
        samples: Number of products.
        generator: Source of the draws, on the CPU.

    Returns:
        The estimate with its standard error.

    Raises:
        ValueError: If ``samples`` is less than 1.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    draws: list[float] = []
    for _ in range(samples):
        check_interrupt()
        v = signs(like, generator)
        draws.append(float(dot(v, product(v))))
    return estimate(draws)
