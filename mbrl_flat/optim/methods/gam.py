r"""GAM: penalise the largest gradient norm in a ball, that is, first-order flatness.

.. math::
    g_1 &= \nabla L(w + \rho' g_0 / \|g_0\|), \quad h = g_1 - g_0, \quad w' = w + \rho h / \|h\|, \\
    g_2 &= \nabla L(w'), \quad g_3 = \nabla L(w' + \rho' g_2 / \|g_2\|), \\
    G &= b_1 g_1 + (1 - b_1) g_3, \quad P = g_0 + (1 - b_0) g_2, \quad
    d = G - \gamma \left(P - \frac{\langle P, G \rangle}{\|G\|_2^2} G\right)

with :math:`g_0 = \nabla L(w)`. The second gradients stand for the gradient of the gradient's norm.

How to choose rho:
    rho is the distance at which the gradient's change is taken (0.2 in the authors' code),
    ``inner_rho`` the short step of the finite difference (0.02): keep it a tenth of rho.

References:
    Zhang et al., "Gradient Norm Aware Minimization Seeks First-Order Flatness and Improves
    Generalization", CVPR 2023, arXiv:2303.03108, in the accelerated form of the authors' code;
    rho 0.2, rho' 0.02, gamma 0.03, b_0 0.5 and b_1 0.6 are its recipe for a ResNet on CIFAR-100.

Deviations from the paper:
    None. As in that code, where the radii vanish d is the gradient, whatever the weights.
"""

import torch
from torch import Tensor

from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.norms import inner, joint_norm
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer, combine_gradients
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.with_base import HasBase


@register("gam", paper="arXiv:2303.03108", evaluations=4, memory=9, neutral={"rho": 0.0})
class GAM(HasBase, RadiusOptimizer):
    """Four evaluations: two pairs, each of a point and one a little up the slope.

    Attributes:
        rho: Distance at which the change of the gradient is taken.
        inner_rho: The rho' of the equations.
        gamma: Weight of the penalty.
        penalty_weight: The b_0 of the equations: 1 takes the penalty at w alone.
        descent_weight: The b_1 of the equations: 1 descends along g_1 alone.
    """

    rho: Radius = 0.2
    inner_rho: float = setting(0.02, "[0, inf)")
    gamma: float = setting(0.03, "[0, inf)")
    penalty_weight: float = setting(0.5, "[0, 1]")
    descent_weight: float = setting(0.6, "[0, 1]")

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        loss = evaluate()
        chosen = self._chosen_now()
        selection = self._selected(chosen)
        if not selection.params or not selection.are_finite(loss):
            return loss
        first, sign = self._grads(), 1.0 if selection.radii[0] > 0.0 else -1.0
        up = Perturbation.of(self._up(selection.grads, sign))
        self._evaluate_at(evaluate, selection.params, up)
        second = self._grads()
        params = [p for p in chosen if p in first and p in second]
        change = [second[p] - first[p] for p in params]
        norm = joint_norm(change)
        if not params or not bool(norm.isfinite()):
            return loss
        shifts = {p: c * (chosen[p] / (norm + 1e-12)) for p, c in zip(params, change, strict=True)}
        moved: list[Tensor] = list(shifts)
        far = self._report(moved, Perturbation.of(list(shifts.values())))
        far_loss = self._evaluate_at(evaluate, moved, far)
        third = self._grads()
        near = {p: third[p] for p in params if p in third}
        ascent = dict(zip(near, self._up(list(near.values()), sign), strict=True))
        total = [shift + ascent.get(p, 0.0) for p, shift in shifts.items()]
        self._evaluate_at(evaluate, moved, Perturbation.of(total))
        combine_gradients([first, second, third, self._grads()], self._final)
        self.last["perturbed_gap"] = far_loss - loss
        return loss

    def _up(self, grads: list[Tensor], sign: float) -> list[Tensor]:
        """A step of length ``inner_rho`` along the gradients."""
        scale = sign * self.inner_rho / (joint_norm(grads) + 1e-12)
        return list(torch._foreach_mul(grads, scale))

    def _final(self, passes: list[list[Tensor]]) -> list[Tensor]:
        penalty, descent, others, final = passes
        torch._foreach_mul_(final, 1.0 - self.descent_weight)
        torch._foreach_add_(final, descent, alpha=self.descent_weight)
        torch._foreach_add_(penalty, others, alpha=1.0 - self.penalty_weight)
        share = inner(penalty, final) / inner(final, final).clamp(min=1e-30)
        for down, up in zip(final, penalty, strict=True):
            down.mul_(1.0 + self.gamma * share).sub_(up, alpha=self.gamma)
        return final
