r"""How much perturbations of the weights raise the loss: worst case, average case, adaptive.

===========================  =====================================================================
``worst_case_sharpness``     ``max L(w + e) - L(w)`` over ``|e| <= rho``, by projected gradient
                             ascent
``adaptive_sharpness``       one step of ascent within ``|T^-1 e| <= rho``, ``T = |w| + eta``
                             elementwise: ``e = rho T^2 g / |T g|``; invariant to rescalings that
                             leave the function alone
``normalised_sharpness``     the same with the norm of each weight tensor as ``T``
``average_case_sharpness``   mean of ``L(w + e) - L(w)`` over Gaussian ``e`` of standard deviation
                             ``sigma``
``rayleigh``                 ``(L(w + e) + L(w - e) - 2 L(w)) / rho^2`` along the gradient: the
                             curvature in the SAM gap without its slope
===========================  =====================================================================

References:
    Foret et al., ICLR 2021, arXiv:2010.01412, Eq. 1 (worst case); Kwon et al., "ASAM", ICML 2021,
    arXiv:2102.11600, Definition 2 (adaptive).
"""

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.diagnostics.hvp import Hessian, twice_differentiable
from mbrl_flat.diagnostics.sharpness import LossRegion, ascent, loss_at
from mbrl_flat.diagnostics.trace import Estimate, estimate
from mbrl_flat.diagnostics.vectors import flatten, norm, perturbed


def worst_case_sharpness(region: LossRegion, *, rho: float, steps: int) -> float:
    """Climb within a ball of radius ``rho`` and return the highest gap seen.

    Args:
        region: The loss and the weights that move.
        rho: Radius of the perturbation of the weights, at least 0.
        steps: Ascent steps, each of length ``rho`` and followed by a projection; 1 is the SAM
            gap. Steps this long go around the ball quickly; those that fall are not counted.

    Returns:
        A lower bound of the worst gap, at least that of one step.

    Raises:
        ValueError: If ``steps`` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    perturbation = ascent(region.gradient, rho)
    best = loss_at(region, perturbation)
    for _ in range(steps - 1):
        gradient = gradient_at(region, perturbation)
        perturbation = within(perturbation + ascent(gradient, rho), rho)
        # Not max(): it drops a NaN that comes second.
        best = float(np.maximum(best, loss_at(region, perturbation)))
    return best - region.value


def within(perturbation: Tensor, rho: float) -> Tensor:
    """Project ``[n]`` to the ball of radius ``rho``."""
    return perturbation * (rho / norm(perturbation).clamp_min(rho))


def gradient_at(region: LossRegion, perturbation: Tensor) -> Tensor:
    """Gradient ``[n]`` of the loss at ``w + e``; the weights are back at ``w`` afterwards."""
    params = list(region.params)
    with perturbed(params, perturbation), torch.enable_grad(), twice_differentiable():
        grads = torch.autograd.grad(region.loss(), params, materialize_grads=True)
    return flatten(grads)


def first_order_flatness(region: LossRegion, *, rho: float) -> float:
    """Return ``rho |g(w + rho f / |f|)|`` with ``f = H g / |g|``, the way up for ``|g|``.

    Args:
        region: The loss and the weights that move.
        rho: Radius of the perturbation of the weights, at least 0.

    Returns:
        A lower bound of ``rho`` times the largest gradient norm within the radius.

    References:
        Zhang et al., "Gradient Norm Aware Minimization Seeks First-Order Flatness and Improves
        Generalization", CVPR 2023, arXiv:2303.03108.
    """
    # A graph of its own: the region's does not outlive the first move of the weights.
    direction = Hessian(region.loss, region.params)(ascent(region.gradient, 1.0))
    return rho * float(norm(gradient_at(region, ascent(direction, rho))))


def adaptive_sharpness(region: LossRegion, *, rho: float, eta: float) -> float:
    """The gap after one step of ASAM of radius ``rho``, with scales ``|w| + eta``."""
    scale = flatten([p.detach() for p in region.params]).abs() + eta
    return loss_at(region, scale * ascent(scale * region.gradient, rho)) - region.value


def normalised_sharpness(region: LossRegion, *, rho: float) -> float:
    """One step of ascent in which each weight tensor moves in proportion to its own norm.

    With ``T`` the norm of each tensor, ``e = rho T^2 g / |T g|``: invariant to a rescaling of whole
    tensors that leaves the function alone, as before normalising layers and between linear ones.

    Args:
        region: The loss and the weights that move.
        rho: Radius, as a share of the norms.

    Returns:
        The gap; tensors that are zero do not move.
    """
    scale = flatten([norm(p.detach().flatten()).expand(p.shape) for p in region.params])
    return loss_at(region, scale * ascent(scale * region.gradient, rho)) - region.value


def average_case_sharpness(
    region: LossRegion, *, sigma: float, pairs: int, generator: torch.Generator
) -> Estimate:
    """Mean gap over Gaussian perturbations, to second order ``sigma^2 Tr(H) / 2``.

    Args:
        region: The loss and the weights that move.
        sigma: Standard deviation of each weight's perturbation.
        pairs: Draws, each used as ``e`` and ``-e``, so that the slope cancels.
        generator: Source of the draws, on the CPU.

    Returns:
        The mean with its standard error.
    """
    draws: list[float] = []
    for _ in range(pairs):
        noise = torch.randn(region.gradient.numel(), generator=generator).to(region.gradient)
        both = loss_at(region, sigma * noise) + loss_at(region, -sigma * noise)
        draws.append(0.5 * both - region.value)
    return estimate(draws)


def rayleigh(region: LossRegion, direction: Tensor, *, rho: float) -> float:
    """Central second difference of the loss along ``direction`` ``[n]`` at distance ``rho``."""
    step = ascent(direction, rho)
    return (loss_at(region, step) + loss_at(region, -step) - 2.0 * region.value) / rho**2
