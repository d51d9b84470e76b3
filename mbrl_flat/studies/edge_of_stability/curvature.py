r"""The top of the Hessian along a run, and how it changes with the weights.

The gradient of the sharpness needs no derivative of the eigenvector (envelope theorem):

.. math::
    \nabla S(\theta) = \nabla_\theta \, u^\top H(\theta) u \quad\text{with } u \text{ held fixed}

From it follow the two terms that drive the sharpness under gradient flow with weight decay,
:math:`\dot S = a - \lambda \kappa` with :math:`a = -\nabla L \cdot \nabla S` and
:math:`\kappa = \theta \cdot \nabla S`.

References:
    Damian, Nichani, Lee, "Self-Stabilization", ICLR 2023, Section 3 (``a``).
    Saether et al., "Does Weight Decay Enhance Training Stability?", arXiv:2605.16622 (the
    alignment of the weights with the sharpness gradient; its exact form there is not known to us).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_flat.diagnostics.hvp import Hessian, twice_differentiable
from mbrl_flat.diagnostics.lanczos import lanczos, start_vector
from mbrl_flat.diagnostics.vectors import flatten, split
from mbrl_flat.studies.edge_of_stability.third_order import ThriceDifferentiable

Loss = Callable[[], Tensor]
"""A deterministic scalar of the current weights."""


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """The loss around one point.

    Attributes:
        loss: The loss.
        gradient: ``[n]``.
        sharpness: Largest eigenvalue of the Hessian.
        top: Its unit eigenvector ``[n]``.
    """

    loss: float
    gradient: Tensor
    sharpness: float
    top: Tensor


class CurvatureTracker:
    """Finds the top eigenpair again and again along a run, each time from the last one.

    Args:
        loss: What is trained.
        params: Its weights.
        seed: Seed of the starts.
        max_iterations: Most Hessian-vector products each time.
        tolerance: Relative residual at which they stop.
    """

    def __init__(
        self,
        loss: Loss,
        params: Sequence[Tensor],
        *,
        seed: int = 0,
        max_iterations: int = 30,
        tolerance: float = 1e-2,
    ) -> None:
        self.loss, self.params = loss, list(params)
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self._generator = torch.Generator().manual_seed(seed)
        self._previous: Tensor | None = None

    def __call__(self) -> Curvature:
        """Measure at the current weights, which stay as they are."""
        hessian = Hessian(self.loss, self.params)
        start = start_vector(hessian.size, generator=self._generator, previous=self._previous)
        found = lanczos(
            hessian,
            start.to(hessian.gradient),
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
        )
        # Both ends keep their places in the start, so that neither is lost.
        self._previous = found.top + 0.3 * found.bottom
        return Curvature(
            loss=float(hessian.loss),
            gradient=hessian.gradient,
            sharpness=found.lambda_max,
            top=found.top,
        )


def sharpness_gradient(loss: Loss, params: Sequence[Tensor], top: Tensor) -> Tensor:
    """Gradient of ``top^T H top`` with ``top`` held fixed.

    Args:
        loss: Three times differentiable.
        params: Weights.
        top: Unit eigenvector ``[n]`` of the simple largest eigenvalue.

    Returns:
        The gradient of the sharpness ``[n]``.
    """
    weights = list(params)
    with torch.enable_grad(), twice_differentiable(), ThriceDifferentiable():
        grads = torch.autograd.grad(loss(), weights, create_graph=True, materialize_grads=True)
        along = (flatten(grads) * top).sum()
        columns = torch.autograd.grad(along, weights, create_graph=True, materialize_grads=True)
        rayleigh = (flatten(columns) * top).sum()
        slopes = torch.autograd.grad(rayleigh, weights, materialize_grads=True)
    return flatten([slope.detach() for slope in slopes])


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What drives the sharpness at one point.

    Attributes:
        sharpening: ``a = -grad L . grad S``, the part of the loss alone.
        kappa: ``theta . grad S``, which weight decay multiplies.
        kappa_by_tensor: Its parts ``[number of tensors]``, one for each of the weights given.
        cosine: Cosine of the angle between weights and sharpness gradient.
        weight_norm: Euclidean norm of the weights.
    """

    sharpening: float
    kappa: float
    kappa_by_tensor: Tensor
    cosine: float
    weight_norm: float


def drift(loss: Loss, params: Sequence[Tensor], here: Curvature) -> Drift:
    """Measure what drives the sharpness.

    Args:
        loss: What is trained, without weight decay.
        params: Its weights.
        here: The curvature of the same loss at the same weights.

    Returns:
        The terms.
    """
    slope = sharpness_gradient(loss, params, here.top)
    weights = flatten([param.detach() for param in params])
    products = split(weights * slope, params)
    weight_norm = weights.norm()
    kappa = weights @ slope
    return Drift(
        sharpening=-float(here.gradient @ slope),
        kappa=float(kappa),
        kappa_by_tensor=torch.stack([product.sum() for product in products]),
        cosine=float(kappa / (weight_norm * slope.norm())),
        weight_norm=float(weight_norm),
    )
