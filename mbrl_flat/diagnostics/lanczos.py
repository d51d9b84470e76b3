r"""Both ends of the spectrum of a symmetric matrix that is known by its products alone.

With an orthonormal basis ``V_k`` of the Krylov space of a start vector,

.. math::
    A V_k = V_k T_k + \beta_k v_{k+1} e_k^\top, \qquad T_k = \mathrm{tridiag}(\beta, \alpha, \beta)

and the extreme eigenvalues of ``T_k`` approach those of ``A`` from inside the spectrum: the
largest is never overestimated. Power iteration would find the largest *absolute* eigenvalue, which
early in training is often a negative one, and needs several times as many products.

References:
    Lanczos, Journal of Research of the NBS 45(4), 1950; residuals and re-orthogonalisation as in
    Parlett, "The Symmetric Eigenvalue Problem", SIAM, 1998, Chapter 13.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_flat.diagnostics.vectors import dot, norm
from mbrl_flat.runtime.interrupts import check_interrupt

Product = Callable[[Tensor], Tensor]
"""Multiplies a vector ``[n]`` by a symmetric matrix."""

_SMALL_END = 1e-3
"""An eigenvalue below this share of the other end's counts as zero when convergence is judged."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Estimates of the extreme eigenpairs.

    Attributes:
        lambda_max: Largest eigenvalue (algebraic); NaN if a product was not finite.
        lambda_min: Smallest eigenvalue; likewise.
        top: Unit eigenvector ``[n]`` of the largest.
        bottom: Unit eigenvector ``[n]`` of the smallest.
        residual: ``|A x - lambda x|`` of the largest; some eigenvalue lies within it.
        iterations: Products that were computed.
        converged: Both residuals met the tolerance.
    """

    lambda_max: float
    lambda_min: float
    top: Tensor
    bottom: Tensor
    residual: float
    iterations: int
    converged: bool


def lanczos(
    product: Product,
    start: Tensor,
    *,
    max_iterations: int = 20,
    min_iterations: int = 1,
    tolerance: float = 1e-2,
) -> Spectrum:
    """Find the extreme eigenpairs by Lanczos with full re-orthogonalisation.

    Args:
        product: Multiplies the symmetric matrix by a vector ``[n]``, such as a Hessian.
        start: Any vector ``[n]`` but zero; a direction that it lacks altogether is never found.
        max_iterations: Most products; the basis takes as many vectors of memory.
        min_iterations: Fewest products: a start near one eigenvector looks converged too early.
        tolerance: Largest residual of each pair, as a share of its eigenvalue's absolute value, or
            of a thousandth of the other's if that is more. The eigenvalue's error is far less.

    Returns:
        The estimates.

    Raises:
        ValueError: If ``max_iterations`` is less than 1.
    """
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}.")
    count = min(max_iterations, start.numel())
    basis = start.new_empty(count, start.numel())
    basis[0] = start / norm(start)
    alphas: list[float] = []
    betas: list[float] = []
    while True:
        check_interrupt()
        k = len(alphas)
        alpha, w = _next_direction(product, basis[: k + 1])
        alphas.append(alpha)
        beta = float(norm(w))
        if not (math.isfinite(alphas[-1]) and math.isfinite(beta)):
            return _not_finite(start, k + 1)
        values, vectors = _tridiagonal(alphas, betas)
        scale = float(values.abs().max())
        # What is left of w is rounding: the Krylov space is closed and its pairs are exact.
        beta = 0.0 if beta <= 10.0 * torch.finfo(start.dtype).eps * scale else beta
        residuals = beta * vectors[-1, [-1, 0]].abs()
        # One end is often a hundred times the other; each has its own scale.
        scales = values[[-1, 0]].abs().clamp_min(_SMALL_END * scale)
        converged = bool((residuals <= tolerance * scales).all())
        if k + 1 == count or (converged and (k + 1 >= min_iterations or beta == 0.0)):
            break
        betas.append(beta)
        basis[k + 1] = w / beta
    ends = vectors[:, [-1, 0]].to(basis).mT @ basis[: len(alphas)]
    return Spectrum(
        lambda_max=float(values[-1]), lambda_min=float(values[0]),
        top=ends[0] / norm(ends[0]), bottom=ends[1] / norm(ends[1]),
        residual=float(residuals[0]), iterations=len(alphas), converged=converged,
    )  # fmt: skip


def largest_eigenvalue(
    product: Product,
    like: Tensor,
    *,
    generator: torch.Generator,
    iterations: int,
    tolerance: float,
) -> float:
    """Largest eigenvalue of a matrix, from a random start of the type and device of ``like``."""
    start = start_vector(like.numel(), generator=generator).to(like)
    return lanczos(product, start, max_iterations=iterations, tolerance=tolerance).lambda_max


def start_vector(
    size: int, *, generator: torch.Generator, previous: Tensor | None = None
) -> Tensor:
    """Return a start ``[size]``: random, or ``previous`` with a tenth of its length in noise.

    An exact eigenvector spans a Krylov space of its own: started there, Lanczos would never see
    a direction that has become the sharper one since.

    Args:
        size: Number of entries.
        generator: Source of the randomness, on the CPU.
        previous: Where an earlier, similar matrix had its extreme eigenvectors.

    Returns:
        The vector, float32 on the CPU unless ``previous`` is something else.
    """
    noise = torch.randn(size, generator=generator)
    if previous is None:
        return noise
    noise = noise.to(previous)
    return previous / norm(previous) + 0.1 * noise / norm(noise)


def _next_direction(product: Product, basis: Tensor) -> tuple[float, Tensor]:
    """Multiply the last vector of a basis ``[k, n]``; its own part, and the rest ``[n]``."""
    w = product(basis[-1])
    alpha = float(dot(basis[-1], w))
    # Once leaves errors of the size of the cancellation; "twice is enough" (Parlett, 6.9).
    for _ in range(2):
        w = w - (basis @ w) @ basis
    return alpha, w


def _tridiagonal(alphas: list[float], betas: list[float]) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors of ``T_k``, in float64 whatever the products."""
    matrix = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    if betas:
        side = torch.tensor(betas, dtype=torch.float64)
        matrix = matrix + torch.diag(side, 1) + torch.diag(side, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def _not_finite(start: Tensor, iterations: int) -> Spectrum:
    nan, none = float("nan"), torch.zeros_like(start)
    return Spectrum(
        lambda_max=nan, lambda_min=nan, top=none, bottom=none, residual=nan,
        iterations=iterations, converged=False,
    )  # fmt: skip
