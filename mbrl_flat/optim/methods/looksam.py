r"""LookSAM: SAM in every k-th step; its part orthogonal to the clean gradient is reused.

.. math::
    \text{every k-th step:} \quad d = g', \quad
    g_v = g' - \frac{\langle g', g \rangle}{\|g\|_2^2} g, \qquad
    \text{else:} \quad d = g + \alpha \frac{\|g\|_2}{\|g_v\|_2} g_v

with SAM's :math:`g'`. ``every=1`` is SAM; the other steps cost one evaluation.

How to choose rho:
    As for SAM; 0.1 in the code that we follow. What is reused is scaled to the gradient, so alpha
    and ``every`` matter more than rho: with every 10 begin at alpha 0.7.

References:
    Liu et al., "Towards Efficient and Scalable Sharpness-Aware Minimization", CVPR 2022,
    arXiv:2203.02714; k 10, alpha 0.7 and rho 0.1 as in the code of arXiv:2401.12033.

Deviations from the paper:
    Norms and inner products are over all parameters together unless ``scope=tensor``. The norm of
    g_v counts as at least 1e-8. Layer-wise scaling (Look-LayerSAM) is left out. With
    ``micro_batches=each`` every micro-batch replaces g_v: the steps in between reuse that of the
    last one.
"""

from typing import Literal

from torch import Tensor

from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.norms import inner, joint_norm
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import MethodState, SharpnessAware


def _share(perturbed: list[Tensor], clean: list[Tensor]) -> Tensor:
    # A guard added here would leave a part along the gradient, which is then made long.
    return inner(perturbed, clean) / inner(clean, clean).clamp(min=1e-30)


@register("looksam", paper="arXiv:2203.02714", evaluations=1.1, memory=3, neutral={"rho": 0.0})
class LookSAM(SharpnessAware):
    """SAM in every k-th step, and a part of its gradient in between.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        alpha: Weight of what is reused.
        every: The k of the paper.
        scope: Whether the part across the gradient is taken of all parameters together or of every
            tensor by itself, as some implementations do. The perturbation is joint in any case.
    """

    rho: Radius = 0.1
    alpha: float = setting(0.7, "[0, inf)")
    every: int = setting(10, "[1, inf)")
    scope: Literal["joint", "tensor"] = "joint"

    needs_clean = True

    def combine(
        self, clean: list[Tensor], perturbed: list[Tensor], method_state: list[MethodState]
    ) -> list[Tensor]:
        """The perturbed gradient; its part across the clean one is kept."""
        share = _share(perturbed, clean)
        for a, b, own in zip(clean, perturbed, method_state, strict=True):
            own["across"] = b - (_share([b], [a]) if self.scope == "tensor" else share) * a
        return perturbed

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        loss = super()._gradient(evaluate)
        if self._perturbs or not self._chosen():
            return loss
        both = [p for p in self._params_with_grad() if "across" in self.method_state.get(p, {})]
        grads = [p.grad for p in both if p.grad is not None]
        if both:
            across = [self.method_state[p]["across"] for p in both]
            joint = self._factor(grads, across)
            for grad, part in zip(grads, across, strict=True):
                grad.addcmul_(
                    part, self._factor([grad], [part]) if self.scope == "tensor" else joint
                )
        return loss

    def _factor(self, grads: list[Tensor], across: list[Tensor]) -> Tensor:
        return self.alpha * joint_norm(grads) / joint_norm(across).clamp(min=1e-8)
