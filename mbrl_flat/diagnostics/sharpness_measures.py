"""Sharpness measures that the sharpness probe adds on request, each an object with its settings.

Measures of the first kind use the graph of the loss at the weights. Those of the second kind move
the weights and restore them, which invalidates the graph, and so come last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from mbrl_flat.diagnostics import perturbed_sharpness
from mbrl_flat.diagnostics.gauss_newton import of_categorical
from mbrl_flat.diagnostics.lanczos import Product, largest_eigenvalue
from mbrl_flat.diagnostics.preconditioned import preconditioned, step_scales, threshold
from mbrl_flat.diagnostics.sharpness import LossRegion, sam_gap
from mbrl_flat.diagnostics.trace import Estimate, hutchinson
from mbrl_flat.diagnostics.vectors import norm
from mbrl_flat.interfaces import CategoricalLoss


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a quantity may need besides the loss.

    Attributes:
        generator: Source of every draw, on the CPU.
        optimizer: Who trains the weights, if that is known.
        categorical: The cross entropies in the loss, if the agent takes them apart.
    """

    generator: torch.Generator
    optimizer: torch.optim.Optimizer | None = None
    categorical: CategoricalLoss | None = None


class SharpnessMeasure(Protocol):
    """Measures something of a loss around its weights."""

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """Return values by name; the weights end where they began."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Trace of the Hessian by Hutchinson's estimator; uses the graph.

    Attributes:
        samples: Random vectors, one Hessian-vector product each; the error falls as their root.
    """

    samples: int = 8

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """``trace`` and ``trace_standard_error``."""
        found = hutchinson(
            region.product, region.gradient, samples=self.samples, generator=context.generator
        )
        return _with_error("trace", found)


@dataclass(frozen=True, kw_only=True)
class _LargestEigenvalue:
    """Base of the measures that find one.

    Attributes:
        iterations: Most Lanczos iterations.
        tolerance: Relative residual at which they stop.
    """

    iterations: int = 12
    tolerance: float = 0.05

    def of(self, product: Product, region: LossRegion, context: Context) -> float:
        """Of the matrix that ``product`` multiplies by."""
        return largest_eigenvalue(
            product, region.gradient, generator=context.generator, **vars(self)
        )


@dataclass(frozen=True, kw_only=True)
class Preconditioned(_LargestEigenvalue):
    """Largest eigenvalue of ``D^{1/2} H D^{1/2}`` with Adam's step sizes; uses the graph."""

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """``preconditioned`` and its threshold; nothing for other optimizers than Adam's kind."""
        if context.optimizer is None:
            return {}
        scales = step_scales(context.optimizer, region.params)
        if scales is None:
            return {}
        product = preconditioned(region.product, scales)
        return {
            "preconditioned": self.of(product, region, context),
            "preconditioned_threshold": threshold(context.optimizer),
        }


@dataclass(frozen=True, kw_only=True)
class CategoricalGaussNewton(_LargestEigenvalue):
    """Largest eigenvalue of the Gauss-Newton matrix of the cross entropies; uses the graph.

    Of their sum with the coefficients of the loss, on its batch and draws; what else the loss holds
    has no part in it. Modules that move none of the logits have zero.
    """

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """``gauss_newton``; nothing for agents that do not take their cross entropies apart."""
        if context.categorical is None:
            return {}
        product = of_categorical(context.categorical, region.params)
        return {"gauss_newton": self.of(product, region, context)}


@dataclass(frozen=True, kw_only=True)
class SamGaps:
    """The one-step SAM gap on a grid of radii; moves the weights.

    Attributes:
        rhos: Radii of the perturbations, one column of the row for each.
    """

    rhos: Sequence[float] = (0.01, 0.05, 0.1, 0.5)

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """``sam_gap_<rho>`` and, less its first order, ``curvature_gap_<rho>``."""
        del context
        row: dict[str, float] = {}
        for rho in self.rhos:
            gap = sam_gap(region, rho=rho)
            row[f"sam_gap_{rho:g}"] = gap
            row[f"curvature_gap_{rho:g}"] = gap - rho * float(norm(region.gradient))
        return row


class _Gap:
    """The function ``name`` of ``perturbed_sharpness``; its arguments are the attributes."""

    name = ""

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """The gap, under the function's name."""
        del context
        return {self.name: getattr(perturbed_sharpness, self.name)(region, **vars(self))}


@dataclass(frozen=True, kw_only=True)
class WorstCaseSharpness(_Gap):
    """The highest gap found by several steps of ascent within a ball; moves the weights.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        steps: Gradient ascent steps within the ball, at least 1.
    """

    rho: float = 0.05
    steps: int = 10

    name = "worst_case_sharpness"


@dataclass(frozen=True, kw_only=True)
class AdaptiveSharpness(_Gap):
    """The gap after one step of ASAM; moves the weights.

    Attributes:
        rho: Radius in units of the weights.
        eta: Added to every weight's size.
    """

    rho: float = 0.5
    eta: float = 0.01

    name = "adaptive_sharpness"


@dataclass(frozen=True, kw_only=True)
class NormalisedSharpness(_Gap):
    """The gap after one step in which each weight tensor moves by its norm; moves the weights.

    Attributes:
        rho: Radius as a share of the norms.
    """

    rho: float = 0.05

    name = "normalised_sharpness"


@dataclass(frozen=True, kw_only=True)
class AverageCaseSharpness:
    """The mean gap over Gaussian perturbations; moves the weights.

    Attributes:
        sigma: Standard deviation of each weight's perturbation.
        pairs: Antithetic pairs of draws.
    """

    sigma: float = 0.01
    pairs: int = 8

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """``average_case_sharpness`` and ``average_case_sharpness_standard_error``."""
        found = perturbed_sharpness.average_case_sharpness(
            region, sigma=self.sigma, pairs=self.pairs, generator=context.generator
        )
        return _with_error("average_case_sharpness", found)


@dataclass(frozen=True, kw_only=True)
class AlongGradient:
    """Curvature along the gradient, and the first-order flatness of GAM; moves the weights.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
    """

    rho: float = 0.05

    def __call__(self, region: LossRegion, context: Context) -> Mapping[str, float]:
        """``rayleigh`` and ``first_order_flatness``."""
        del context
        return {
            "rayleigh": perturbed_sharpness.rayleigh(region, region.gradient, rho=self.rho),
            "first_order_flatness": perturbed_sharpness.first_order_flatness(region, rho=self.rho),
        }


def _with_error(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.mean, f"{name}_standard_error": found.standard_error}
