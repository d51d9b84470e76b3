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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor

from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.methods.sam import GradientAscent
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Memory, SharpnessAware


@dataclass(frozen=True, kw_only=True)
class Mix:
    """``(1 - alpha) g + alpha g'``."""

    alpha: float
    needs_clean = True

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Combine clean and perturbed gradients."""
        del memory
        for a, b in zip(clean, perturbed, strict=True):
            b.mul_(self.alpha).add_(a, alpha=1.0 - self.alpha)
        return perturbed


@register("gnp", paper="arXiv:2202.03599", evaluations=2, memory=2, neutral={"rho": 0.0})
def gnp(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.1,
    alpha: float = 0.8,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """Penalised gradient norm; ``alpha`` is the weight of the perturbed gradient."""
    return SharpnessAware(
        params,
        base=base,
        perturbation=GradientAscent(),
        combine=Mix(alpha=alpha),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
