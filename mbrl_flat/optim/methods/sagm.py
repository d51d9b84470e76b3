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

import math

from torch import Tensor

from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import (
    MethodState,
    Perturbation,
    SelectedParams,
    SharpnessAware,
)


@register("sagm", paper="arXiv:2303.10353", evaluations=2, memory=2, neutral={"rho": 0.0})
class SAGM(SharpnessAware):
    """SAGM.

    Attributes:
        alpha: Subtracted from ``rho / |g|``.
    """

    alpha: float = setting(0.001, "[0, inf)")

    needs_clean = True

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``(rho / |g| - alpha) g``: a little less far than SAM."""
        norm = float(selection.grad_norm)
        scales = [rho / (norm + 1e-12) - math.copysign(self.alpha, rho) for rho in selection.radii]
        return Perturbation(directions=selection.grads, scales=scales, length=norm)

    def combine(
        self, clean: list[Tensor], perturbed: list[Tensor], method_state: list[MethodState]
    ) -> list[Tensor]:
        """``(g + g') / 2``."""
        del method_state
        for a, b in zip(clean, perturbed, strict=True):
            b.add_(a).div_(2.0)
        return perturbed
