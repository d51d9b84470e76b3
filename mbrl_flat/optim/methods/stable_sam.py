r"""StableSAM: SAM's direction at the length of the clean gradient.

.. math::
    d = \frac{\|g\|_2}{\|g'\|_2} \, g', \qquad g' = \nabla L(w + \rho g / \|g\|_2)

so that the perturbed gradient, which is longer where the loss is sharp, makes no longer steps. The
norms are over all parameters together.

How to choose rho:
    As for SAM. The rates at which SAM is stable shrink as rho grows; here they are those of the
    base, so larger radii can be tried at the same rate.

References:
    Tan et al., "Stabilizing Sharpness-Aware Minimization Through a Simple Renormalization
    Strategy", JMLR 2025, arXiv:2401.07250.

Deviations from the paper:
    None. The paper calls the method SSAM; that name is taken here by Sparse SAM.
"""

import torch
from torch import Tensor

from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.sharpness_aware import MethodState, SharpnessAware


@register("stable_sam", paper="arXiv:2401.07250", evaluations=2, memory=2, neutral={"rho": 0.0})
class StableSAM(SharpnessAware):
    """SAM whose final gradient is as long as the clean one."""

    needs_clean = True

    def combine(
        self, clean: list[Tensor], perturbed: list[Tensor], method_state: list[MethodState]
    ) -> list[Tensor]:
        """``|g| / |g'| g'``."""
        del method_state
        factor = joint_norm(clean) / joint_norm(perturbed).clamp(min=1e-30)
        torch._foreach_mul_(perturbed, float(factor))
        return perturbed
