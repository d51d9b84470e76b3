r"""SAGM: descend on the clean and the perturbed loss while their gradients are made to agree.

.. math::
    \epsilon = (\rho / \|g\|_2 - \alpha) g, \qquad d = (g + \nabla L(w + \epsilon)) / 2

References:
    Wang et al., "Sharpness-Aware Gradient Matching for Domain Generalization", CVPR 2023,
    arXiv:2303.10353; alpha 0.001 and rho 0.05 are the defaults of the authors' code.

Deviations from the paper:
    The radius is constant unless ``rho`` is a schedule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from mbrl_flat.optim.base import BaseFactory, DriverSettings, Params, joint_norm
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Leaves, Memory, SharpnessAware


@dataclass(frozen=True, kw_only=True)
class MatchedAscent:
    """``(rho / |g| - alpha) g``."""

    alpha: float

    def __call__(self, leaves: Leaves) -> list[Tensor]:
        """Displace a little less than SAM."""
        shifts = leaves.times_radius(leaves.grads, 1.0 / (joint_norm(leaves.grads) + 1e-12))
        return list(torch._foreach_sub(shifts, torch._foreach_mul(leaves.grads, self.alpha)))


class Average:
    """``(g + g') / 2``."""

    needs_clean = True

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Combine clean and perturbed gradients."""
        del memory
        return [(a + b) / 2.0 for a, b in zip(clean, perturbed, strict=True)]


@register("sagm", paper="arXiv:2303.10353", evaluations=2, neutral={"rho": 0.0})
def sagm(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.05,
    alpha: float = 0.001,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[DriverSettings],
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
