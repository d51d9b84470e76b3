r"""LookSAM: SAM in every k-th step, whose part across the clean gradient is reused in between.

.. math::
    \text{every k-th step:} \quad d = g', \quad
    g_v = g' - \frac{\langle g', g \rangle}{\|g\|_2^2} g, \qquad
    \text{else:} \quad d = g + \alpha \frac{\|g\|_2}{\|g_v\|_2} g_v

with SAM's :math:`g'`. ``every=1`` is SAM; the other steps cost one evaluation.

References:
    Liu et al., "Towards Efficient and Scalable Sharpness-Aware Minimization", CVPR 2022,
    arXiv:2203.02714; k 10, alpha 0.7 and rho 0.1 as in the code of arXiv:2401.12033.

Deviations from the paper:
    Norms and inner products are over all parameters together. Layer-wise scaling (Look-LayerSAM)
    is left out.
"""

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from mbrl_flat.optim.base import BaseFactory, DriverSettings, Params
from mbrl_flat.optim.evaluations import Evaluations
from mbrl_flat.optim.methods.sam import GradientAscent
from mbrl_flat.optim.norms import inner, joint_norm
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Memory, SharpnessAware


class KeepOrthogonal:
    """The perturbed gradient; its part across the clean one is remembered."""

    needs_clean = True

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Return ``perturbed``."""
        share = inner(perturbed, clean) / (inner(clean, clean) + 1e-12)
        for a, b, own in zip(clean, perturbed, memory, strict=True):
            own["across"] = b - share * a
        return perturbed


class LookSAM(SharpnessAware):
    """SAM now and then, and its memory in between."""

    alpha: float = 0.0

    def _gradient(self, evaluate: Evaluations) -> Tensor:
        loss = super()._gradient(evaluate)
        if self.steps % self.every == 0 or not self._chosen():
            return loss
        both = [p for p in self._params_with_grad() if "across" in self.memory.get(p, {})]
        grads = [p.grad for p in both if p.grad is not None]
        if both:
            across = [self.memory[p]["across"] for p in both]
            factor = self.alpha * joint_norm(grads) / (joint_norm(across) + 1e-12)
            for param, grad, part in zip(both, grads, across, strict=True):
                param.grad = grad + factor * part
        return loss


@register("looksam", paper="arXiv:2203.02714", evaluations=1.1, memory=3, neutral={"rho": 0.0})
def looksam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.1,
    alpha: float = 0.7,
    every: int = 10,
    only: Sequence[str] | None = None,
    **settings: Unpack[DriverSettings],
) -> SharpnessAware:
    """LookSAM; ``alpha`` weighs what is reused, ``every`` is the k of the paper."""
    optimizer = LookSAM(
        params,
        base=base,
        perturbation=GradientAscent(),
        combine=KeepOrthogonal(),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
    optimizer.alpha = alpha
    return optimizer
