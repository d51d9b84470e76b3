r"""GNP: a penalty on the norm of the gradient, by a finite difference along the gradient.

.. math::
    d = (1 - \alpha) g + \alpha g', \qquad g' = \nabla L(w + \rho g / \|g\|_2)

which is the gradient of :math:`L + \lambda \|\nabla L\|` to first order with
:math:`\alpha = \lambda / \rho`. ``alpha=1`` is SAM, ``alpha=0`` the base.

How to choose rho:
    0.1 on CIFAR and 0.05 on ImageNet in the authors' recipes with alpha 0.8. With Adam and
    learning-rate warm-up, keep rho at 0 during the warm-up and let it rise after
    (``schedules.WarmUp(delay=...)``): the authors of a later study saw the penalty hurt otherwise.

References:
    Zhao, Zhang & Hu, "Penalizing Gradient Norm for Efficiently Improving Generalization in Deep
    Learning", ICML 2022, arXiv:2202.03599; rho 0.1 and alpha 0.8 are the authors' CIFAR recipe.

Deviations from the paper:
    None.
"""

from torch import Tensor

from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import MethodState, SharpnessAware


def mix(clean: list[Tensor], perturbed: list[Tensor], alpha: float) -> list[Tensor]:
    """``(1 - alpha) g + alpha g'``, written to the perturbed gradients."""
    for a, b in zip(clean, perturbed, strict=True):
        b.mul_(alpha).add_(a, alpha=1.0 - alpha)
    return perturbed


@register("gnp", paper="arXiv:2202.03599", evaluations=2, memory=2, neutral={"rho": 0.0})
class GNP(SharpnessAware):
    """Penalised gradient norm.

    Attributes:
        alpha: Weight of the perturbed gradient; 1 is SAM.
    """

    rho: Radius = 0.1
    alpha: float = setting(0.8, "[0, inf)")

    needs_clean = True

    def combine(
        self, clean: list[Tensor], perturbed: list[Tensor], method_state: list[MethodState]
    ) -> list[Tensor]:
        """``(1 - alpha) g + alpha g'``."""
        del method_state
        return mix(clean, perturbed, self.alpha)
