r"""Sections of a loss through the current weights, as arrays.

.. math::
    L(w + a d) \quad\text{or}\quad L(w + a d_1 + b d_2)

Directions are either random, scaled so that each filter (row of a weight) has the norm of that of
the weights, and sections of networks of different scale can be compared; or eigenvectors of the
Hessian, whose curvature at the centre is known, in units of weight space.

References:
    Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, arXiv:1712.09913,
    Section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.diagnostics.guard import preserve_state
from mbrl_flat.diagnostics.lanczos import lanczos, start_vector
from mbrl_flat.diagnostics.sharpness import LossRegion, loss_at, loss_regions
from mbrl_flat.diagnostics.vectors import dot, flatten, norm
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.interfaces import ProbeLoss

Directions = Literal["filter", "eigenvector"]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A loss along one direction or two.

    Attributes:
        distances: Coefficients ``[P]``, the same along each direction; zero is among them.
        losses: ``[P]``, or ``[P, P]`` with the first direction first.
        directions: How they were chosen.
        curvatures: Eigenvalues that belong to the directions; empty for random ones.
    """

    distances: np.ndarray
    losses: np.ndarray
    directions: Directions
    curvatures: tuple[float, ...] = ()


def filter_norms(param: Tensor) -> Tensor:
    """Norm of the row that each entry of a weight belongs to, of the weight's shape."""
    # A row is all that one output unit computes with. Vectors have none: each entry by itself.
    if param.ndim < 2:
        return param.abs()
    axes = tuple(range(1, param.ndim))
    return param.square().sum(axes, keepdim=True).sqrt().expand_as(param)


def filter_direction(params: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Draw a direction ``[n]`` whose filters have the norms of the weights' filters.

    Args:
        params: The weights whose filters give the direction its scale.
        generator: Source of the draw, on the CPU.

    Returns:
        The direction; entries of vectors (biases, scales of norms) stay where they are.
    """
    parts: list[Tensor] = []
    for param in params:
        if param.ndim < 2:
            parts.append(torch.zeros_like(param))
            continue
        noise = torch.randn(param.shape, generator=generator).to(param)
        tiny = torch.finfo(param.dtype).tiny
        parts.append(noise * filter_norms(param.detach()) / filter_norms(noise).clamp_min(tiny))
    return flatten([part.detach() for part in parts])


def top_eigenvectors(
    region: LossRegion, count: int, *, generator: torch.Generator, iterations: int = 30
) -> tuple[list[Tensor], list[float]]:
    """Find the sharpest directions one after the other, each orthogonal to those before.

    Args:
        region: The loss, with its graph intact.
        count: Number of eigenvectors, of the largest eigenvalues.
        generator: Source of the start vectors, on the CPU.
        iterations: Most Lanczos iterations for each.

    Returns:
        Unit vectors ``[n]`` and their eigenvalues, in descending order.
    """
    vectors: list[Tensor] = []
    values: list[float] = []

    def without_found(vector: Tensor) -> Tensor:
        for found in vectors:
            vector = vector - dot(found, vector) * found
        return vector

    for _ in range(count):
        start = start_vector(region.gradient.numel(), generator=generator).to(region.gradient)
        spectrum = lanczos(
            lambda v: without_found(region.product(without_found(v))),
            without_found(start),
            max_iterations=iterations,
            tolerance=1e-3,
        )
        top = without_found(spectrum.top)
        vectors.append(top / norm(top))
        values.append(spectrum.lambda_max)
    return vectors, values


def loss_slice(
    probed: ProbeLoss,
    *,
    dimensions: int = 2,
    directions: Directions = "filter",
    radius: float = 1.0,
    points: int = 21,
    seed: int = 0,
) -> Slice:
    """Evaluate a loss on a line or a square grid around its weights, which end as they began.

    Args:
        probed: The loss and its parameters.
        dimensions: 1 or 2.
        directions: ``filter`` (random, filter-normalised) or ``eigenvector`` (the sharpest).
        radius: Largest coefficient of a direction; the slice goes from minus to plus it.
        points: Coefficients along each direction; odd, so that the weights are among them.
        seed: Determines the directions.

    Returns:
        The slice.

    Raises:
        UserError: If ``dimensions`` or ``points`` is out of range.
    """
    if dimensions not in {1, 2}:
        raise UserError(f"dimensions must be 1 or 2, got {dimensions}.")
    if points < 3 or points % 2 == 0:
        raise UserError(f"points must be odd and at least 3, got {points}.")
    params = [p for module in probed.modules.values() for p in module]
    generator = torch.Generator().manual_seed(seed)
    with preserve_state(params=params):
        for p in params:
            p.requires_grad_(True)
        (region,) = loss_regions(probed, per_module=False)
        axes, curvatures = _axes(region, directions, dimensions, generator)
        distances = np.linspace(-radius, radius, points)
        losses = np.empty((points,) * dimensions)
        for index in np.ndindex(losses.shape):
            steps = [float(distances[i]) * axis for i, axis in zip(index, axes, strict=True)]
            losses[index] = loss_at(region, torch.stack(steps).sum(0))
    return Slice(
        distances=distances, losses=losses, directions=directions, curvatures=tuple(curvatures)
    )


def _axes(
    region: LossRegion, directions: str, count: int, generator: torch.Generator
) -> tuple[list[Tensor], list[float]]:
    if directions == "filter":
        return [filter_direction(region.params, generator) for _ in range(count)], []
    if directions == "eigenvector":
        return top_eigenvectors(region, count, generator=generator)
    raise UnknownNameError("directions", directions, ["filter", "eigenvector"])
