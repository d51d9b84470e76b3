r"""CR-SAM: SAM with a penalty on the curvature along the gradient, from both sides of the weights.

.. math::
    g_\pm = \nabla L(w \pm \epsilon), \qquad
    d = g_+ + \gamma (g_+ + g_- - 2 g) + \beta (g_+ - g_-)

with SAM's epsilon. The second difference stands for the change of curvature, the first for the
curvature along epsilon. ``gamma = beta = 0`` is SAM.

How to choose rho:
    As for SAM; 0.1 in the authors' code. The two penalties grow with rho, gamma with its square:
    with a larger radius take smaller weights.

References:
    Wu, Luo & Wunsch, "CR-SAM: Curvature Regularized Sharpness-Aware Minimization", AAAI 2024,
    arXiv:2312.13555; rho 0.1, gamma 0.1 and beta 0.01 are the defaults of the authors' code.

Deviations from the paper:
    The combination is that of the authors' code. Running statistics move in the first evaluation
    only; the authors' code moves them in the third as well.
"""

from torch import Tensor

from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer, combine_gradients
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import gradient_ascent
from mbrl_flat.optim.with_base import HasBase


@register("cr_sam", paper="arXiv:2312.13555", evaluations=3, memory=3, neutral={"rho": 0.0})
class CRSAM(HasBase, RadiusOptimizer):
    """CR-SAM.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        gamma: Weight of the second difference.
        beta: Weight of the first difference.
    """

    rho: Radius = 0.1
    gamma: float = setting(0.1, "[0, inf)")
    beta: float = setting(0.01, "[0, inf)")

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        loss = evaluate()
        selection = self._selected(self._chosen_now())
        if not selection.params or not selection.are_finite(loss):
            return loss
        perturbation = self._report(selection.params, gradient_ascent(selection))
        clean = self._grads()
        ahead_loss = self._evaluate_at(evaluate, selection.params, perturbation)
        ahead = self._grads()
        self._evaluate_at(evaluate, selection.params, -perturbation)
        combine_gradients([clean, self._grads(), ahead], self._final)
        self.last["perturbed_gap"] = ahead_loss - loss
        return loss

    def _final(self, passes: list[list[Tensor]]) -> list[Tensor]:
        for clean, behind, ahead in zip(*passes, strict=True):
            ahead.mul_(1.0 + self.gamma + self.beta).add_(behind, alpha=self.gamma - self.beta)
            ahead.sub_(clean, alpha=2.0 * self.gamma)
        return passes[-1]
