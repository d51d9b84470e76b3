r"""SAMPa: SAM whose two gradients can be computed in parallel, one of them ahead of the weights.

.. math::
    \tilde w_t = w_t + \rho \, \frac{\nabla L(y_t)}{\|\nabla L(y_t)\|_2 + 10^{-12}}, \qquad
    y_{t+1} = w_t - \eta_t \nabla L(y_t), \qquad
    d = (1 - \lambda) \nabla L(\tilde w_t) + \lambda \nabla L(y_{t+1}), \quad y_0 = w_0

Both points follow from the gradient of the step before, so their gradients can be computed at the
same time. The first step evaluates at the weights too.

How to choose rho:
    As for SAM. lambda weighs the gradient ahead: 0.2 in the paper's experiments, 0 leaves SAM with
    the direction of the step before.

References:
    Xie, Pethick & Cevher, "SAMPa: Sharpness-Aware Minimization Parallelized", NeurIPS 2024,
    arXiv:2410.10683, and the equations of the authors' repository.

Deviations from the paper:
    The two evaluations run one after the other, on the batch of the step; with ``parallel`` each of
    two processes makes one of them, on the same batch and from the same seed. The base may be any:
    y is ahead by the learning rate times the gradient, as for gradient descent. Only perturbed
    parameters move to y. With ``micro_batches=each`` the last micro-batch leaves the direction.
"""

from torch import Tensor, nn

from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.methods.gnp import mix
from mbrl_flat.optim.norms import is_finite
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer, combine_gradients
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.synchronization import exchange_gradients, process_rank
from mbrl_flat.optim.with_base import HasBase


@register("sampa", paper="arXiv:2410.10683", evaluations=2, memory=4, neutral={"rho": 0.0})
class SAMPa(HasBase, RadiusOptimizer):
    """SAM along the last gradient ahead.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        ahead_weight: The lambda of the equations: weight of the gradient ahead.
        parallel: Each of two processes evaluates at one of the points and gets the gradient of the
            other. Both are given the same weights, batches and seed; ``sync`` stays ``none``.
    """

    rho: Radius = 0.05
    ahead_weight: float = setting(0.2, "[0, 1]")
    parallel: bool = False

    clean_first = False

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        chosen = self._chosen_now()
        if not chosen:
            return evaluate()
        known = {p: r for p, r in chosen.items() if "ahead" in self.method_state.get(p, {})}
        if not known:
            loss = evaluate()
            if not self._keep(chosen, loss):
                return loss
            known = {p: r for p, r in chosen.items() if "ahead" in self.method_state.get(p, {})}
            if not known:
                return loss
        selection = self._selected(known, grads=False)
        params, last = selection.params, [own["ahead"] for own in selection.method_state]
        far = self._report(params, selection.along(last))
        rates = {p: group["lr"] for group in self.param_groups for p in group["params"]}
        scales = [-rates[p] if radius > 0.0 else rates[p] for p, radius in known.items()]
        ahead = Perturbation(directions=last, scales=scales)
        (far_grads, far_loss), (ahead_grads, ahead_loss) = self._both(evaluate, params, far, ahead)
        for param in self._params():
            param.grad = ahead_grads.get(param)
        self._keep(chosen, ahead_loss)
        combine_gradients(
            [ahead_grads, far_grads],
            lambda passes: mix(passes[0], passes[1], 1.0 - self.ahead_weight),
        )
        return (far_loss + ahead_loss) / 2.0

    def _both(
        self,
        evaluate: ClosureEvaluator,
        params: list[Tensor],
        far: Perturbation,
        ahead: Perturbation,
    ) -> list[tuple[dict[nn.Parameter, Tensor], Tensor]]:
        """Gradients and losses at both points: made here, or one of them in each process."""
        if not self.parallel:
            losses = []
            for point in (far, ahead):
                loss = self._evaluate_at(evaluate, params, point)
                losses.append((self._grads(), loss))
            return losses
        loss = self._evaluate_at(evaluate, params, (far, ahead)[process_rank(of=2)])
        return exchange_gradients([p for p in self._params() if p.requires_grad], loss)

    def _keep(self, chosen: dict[nn.Parameter, float], loss: Tensor) -> bool:
        """Keep the gradients for the next step, if they are finite."""
        grads = {p: p.grad for p in chosen if p.grad is not None}
        if not is_finite(loss, list(grads.values())):
            return False
        for param, grad in grads.items():
            self.method_state.setdefault(param, {})["ahead"] = grad.clone()
        return True
