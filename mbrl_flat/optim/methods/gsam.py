r"""GSAM: SAM that also ascends on the clean loss, orthogonally to the perturbed gradient.

.. math::
    g_\perp = g - \frac{\langle g, g' \rangle}{\|g'\|_2^2} g', \qquad d = g' - \alpha g_\perp

with SAM's :math:`g' = \nabla L(w + \rho g / \|g\|)`. It lowers the surrogate gap
:math:`L(w + \epsilon) - L(w)`. ``alpha=0`` is SAM.

How to choose rho:
    As for SAM. The paper ties it to the rate: ``schedules.FollowsLearningRate``. Tune alpha, the
    other way to make the gap small, after rho.

References:
    Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022,
    arXiv:2203.08065, Algorithm 1; alpha 0.4 is the default of the authors' code.

Deviations from the paper:
    The radius is constant unless ``rho`` is ``schedules.FollowsLearningRate``, the paper's rule.
"""

from torch import Tensor

from mbrl_flat.optim.norms import inner
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import MethodState, SharpnessAware


@register("gsam", paper="arXiv:2203.08065", evaluations=2, memory=2, neutral={"rho": 0.0})
class GSAM(SharpnessAware):
    """GSAM.

    Attributes:
        alpha: Weight of the climb across the perturbed gradient; 0 is SAM.
    """

    alpha: float = setting(0.4, "[0, inf)")

    needs_clean = True

    def combine(
        self, clean: list[Tensor], perturbed: list[Tensor], method_state: list[MethodState]
    ) -> list[Tensor]:
        """``g' - alpha g_perp``, with inner products over all parameters."""
        del method_state
        share = inner(clean, perturbed) / inner(perturbed, perturbed).clamp(min=1e-30)
        for a, b in zip(clean, perturbed, strict=True):
            b.mul_(1.0 + self.alpha * share).sub_(a, alpha=self.alpha)
        return perturbed
