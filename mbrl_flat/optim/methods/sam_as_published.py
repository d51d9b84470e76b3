r"""SAM as the public code of TD-MPC2 with SAM runs it, **with a defect of that code**.

It is here to reproduce published runs and to tell what is due to SAM and what to the defect. To
train, take ``optimizer=sam`` with ``unselected_gradient=clean``, which has no defect.
``+variant=published`` on the command line is this method with the other changes of that code.

Selected parameters P (``only=[encoder, dynamics]``) take SAM's step. All others, the heads Q, take
a step of the base **between** the two evaluations, along the clean gradient plus the perturbed
gradient that the second evaluation of the step before **left behind**:

.. math::
    g &= \nabla L_k(P, Q), \qquad \epsilon = \rho \, g_P / (\|g_P\|_2 + 10^{-12}) \\
    Q' &= \mathrm{base}(Q, \; g_Q + s_{k-1}), \qquad s_0 = 0 \\
    g' &= \nabla L_k(P + \epsilon, Q'), \qquad s_k = g'_Q \\
    P' &= \mathrm{base}(P, \; g'_P)

The left-over :math:`s_{k-1}` is of another batch, other targets and other weights. No line of the
published code asks for it: the second backward pass fills gradients that nothing clears. And
:math:`g'` is no gradient at a perturbed point of the loss that gave :math:`\epsilon`, since the
heads have moved in between.

With ``only=null`` there are no heads, and this is SAM. With ``rho=0`` it is the base, as all
methods are; to run the published recipe without a perturbation set ``rho=1e-8``, which moves
float32 weights by less than their rounding.

How to choose rho:
    As for SAM. The published runs have 0.001 to 0.05.

References:
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
    ICLR 2021, arXiv:2010.01412; applied to world models at NeurIPS 2025
    (https://openreview.net/forum?id=vcB1OwtWUZ); the code is
    https://github.com/stablegradients/TDMPC2-SAM at a5e93b1, ``tdmpc2/tdmpc2.py``, ``_update``.
    ``scripts/published_update.py --peer PATH`` compares one update with it.

Deviations from the paper:
    The paper describes SAM; this is what the code does. The code also clips every module by
    itself and draws dropout again in the second evaluation, which are settings of every method:
    ``clip_scope=module`` and ``same_rng=false``. If the second evaluation is not finite the step
    of the heads is undone. A base that counts steps of all parameters together counts two.
"""

import copy
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.norms import clip_grads, is_finite
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import gradient_ascent
from mbrl_flat.optim.with_base import HasBase


@register(
    "sam_as_published", paper="arXiv:2010.01412", evaluations=2, memory=2, neutral={"rho": 0.0}
)
class SAMAsPublished(HasBase, RadiusOptimizer):
    """SAM whose unselected parameters step between the evaluations.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
    """

    rho: Radius = 0.05

    refuses_local = "sam_as_published steps between evaluations and needs sync=global."

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        chosen = self._chosen_now()
        loss = evaluate()
        selection, grads = self._selected(chosen), self._grads()
        if not selection.params or not is_finite(loss, list(grads.values())):
            return loss
        heads = {param: grad for param, grad in grads.items() if param not in chosen}
        if heads and self.micro_batches == "each":
            raise UserError(
                "sam_as_published steps between the two evaluations of the whole batch; set "
                "micro_batches=replay."
            )
        params, ascent = selection.params, gradient_ascent(selection)
        self._report(params, ascent)
        del selection, grads
        undo = self._step_heads(heads) if heads else lambda: None
        try:
            perturbed_loss = self._evaluate_at(evaluate, params, ascent)
        except BaseException:
            undo()
            raise
        self.last["perturbed_gap"] = perturbed_loss - loss
        left = self._grads()
        if not is_finite(perturbed_loss, list(left.values())):
            undo()  # the driver finds the gradient and says what is not finite
            return loss
        for param in left.keys() - chosen.keys():
            self.method_state.setdefault(param, {})["left_over"] = left[param]
            param.grad = None
        return loss

    def _step_heads(self, heads: Mapping[nn.Parameter, Tensor]) -> Callable[[], None]:
        """Step the heads along their gradients and what was left behind; return how to undo it."""
        weights = [param.detach().clone() for param in heads]
        states = [copy.deepcopy(self.state[p]) if p in self.state else None for p in heads]

        def undo() -> None:
            for param, weight, state in zip(heads, weights, states, strict=True):
                param.copy_(weight)
                self.state.pop(param, None)
                if state is not None:
                    self.state[param] = state

        self.zero_grad(set_to_none=True)
        for param, grad in heads.items():
            left = self.method_state.get(param, {}).get("left_over")
            param.grad = grad if left is None else grad + left
        if self.max_grad_norm is not None:
            clip_grads(self.param_groups, self.max_grad_norm, scope=self.clip_scope)
        self._apply()
        return undo
