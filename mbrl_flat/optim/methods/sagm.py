r"""SAGM: descend on the clean and the perturbed loss while their gradients are made to agree.

.. math::
    \epsilon = (\rho / \|g\|_2 - \alpha) g, \qquad d = (g + \nabla L(w + \epsilon)) / 2

How to choose rho:
    As for SAM: 0.05 in the authors' code. alpha is subtracted from rho / ||g||, so it matters only
    where the gradient is large.

References:
    Wang et al., "Sharpness-Aware Gradient Matching for Domain Generalization", CVPR 2023,
    arXiv:2303.10353; alpha 0.001 and rho 0.05 are the defaults of the authors' code.

Deviations from the paper:
    The radius is constant unless ``rho`` is a schedule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor

from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Memory, Perturbation, SelectedParams, SharpnessAware


@dataclass(frozen=True, kw_only=True)
class MatchedAscent:
    """``(rho / |g| - alpha) g``."""

    alpha: float

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """Perturb a little less than SAM."""
        norm = float(selection.grad_norm)
        scales = [rho / (norm + 1e-12) - self.alpha for rho in selection.radii]
        return Perturbation(directions=selection.grads, scales=scales, length=norm)


class Average:
    """``(g + g') / 2``."""

    needs_clean = True

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Combine clean and perturbed gradients."""
        del memory
        for a, b in zip(clean, perturbed, strict=True):
            b.add_(a).div_(2.0)
        return perturbed


@register("sagm", paper="arXiv:2303.10353", evaluations=2, memory=2, neutral={"rho": 0.0})
def sagm(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.05,
    alpha: float = 0.001,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """SAGM with radius ``rho``; see the module for the equations."""
    return SharpnessAware(
        params,
        base=base,
        perturbation=MatchedAscent(alpha=alpha),
        combine=Average(),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
