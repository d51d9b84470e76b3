r"""GAM: penalise the largest gradient norm in a ball, that is, first-order flatness.

.. math::
    g_1 &= \nabla L(w + \rho' g_0 / \|g_0\|), \quad h = g_1 - g_0, \quad w' = w + \rho h / \|h\|, \\
    g_2 &= \nabla L(w'), \quad g_3 = \nabla L(w' + \rho' g_2 / \|g_2\|), \\
    G &= g_1 + g_3, \quad P = g_0 + g_2, \quad
    d = G - \gamma \left(P - \frac{\langle P, G \rangle}{\|G\|_2^2} G\right)

with :math:`g_0 = \nabla L(w)`. The second gradients stand for the gradient of the gradient's norm.

How to choose rho:
    rho is the distance at which the gradient's change is taken (0.2 in the authors' code),
    ``inner_rho`` the short step of the finite difference (0.02): keep it a tenth of rho.

References:
    Zhang et al., "Gradient Norm Aware Minimization Seeks First-Order Flatness and Improves
    Generalization", CVPR 2023, arXiv:2303.03108, in the accelerated form of the authors' code;
    rho 0.2, rho' 0.02 and gamma 0.03 are its defaults.

Deviations from the paper:
    The weights of the four gradients are 1, as in that code.
"""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from mbrl_flat.optim.base import BaseFactory, FlatOptimizer, Params, StepOptions
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.norms import inner, joint_norm
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing import PerturbingOptimizer, combined
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius, check_radius


class GAM(PerturbingOptimizer):
    """Four evaluations: two pairs, each of a point and one a little up the slope."""

    inner_rho: float = 0.0
    gamma: float = 0.0

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        loss = evaluate()
        chosen = self._chosen_now()
        selection = self._selected(chosen)
        if not selection.params or not selection.are_finite(loss):
            return loss
        first = self._grads()
        self._evaluate_at(evaluate, selection.params, Perturbation.of(self._up(selection.grads)))
        second = self._grads()
        params = [p for p in selection.params if p in second]
        change = [second[p] - first[p] for p in params]  # pyright: ignore[reportArgumentType]
        norm = joint_norm(change)
        if not params or not bool(norm.isfinite()):
            return loss
        radii = [chosen[p] for p in params]  # pyright: ignore[reportArgumentType]
        perturbation = [c * (rho / (norm + 1e-12)) for c, rho in zip(change, radii, strict=True)]
        far = self._report(params, Perturbation.of(perturbation))
        far_loss = self._evaluate_at(evaluate, params, far)
        third = self._grads()
        near = {p: third[p] for p in params if p in third}  # pyright: ignore[reportArgumentType]
        ascent = dict(zip(near, self._up(list(near.values())), strict=True))
        total = [s + ascent.get(p, 0.0) for p, s in zip(params, perturbation, strict=True)]  # pyright: ignore[reportArgumentType]
        self._evaluate_at(evaluate, params, Perturbation.of(total))
        combined([first, second, third, self._grads()], self._final)
        self.last["perturbed_gap"] = far_loss - loss
        return loss

    def _up(self, grads: list[Tensor]) -> list[Tensor]:
        """A step of length ``inner_rho`` along the gradients."""
        return list(torch._foreach_mul(grads, self.inner_rho / (joint_norm(grads) + 1e-12)))

    def _final(self, passes: list[list[Tensor]]) -> list[Tensor]:
        penalty, descent, others, final = passes
        torch._foreach_add_(final, descent)
        torch._foreach_add_(penalty, others)
        share = inner(penalty, final) / inner(final, final).clamp(min=1e-30)
        for down, up in zip(final, penalty, strict=True):
            down.mul_(1.0 + self.gamma * share).sub_(up, alpha=self.gamma)
        return final


@register("gam", paper="arXiv:2303.03108", evaluations=4, memory=8, neutral={"rho": 0.0})
def gam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.2,
    inner_rho: float = 0.02,
    gamma: float = 0.03,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """GAM; ``inner_rho`` is the rho' of the equations."""
    check_radius(inner_rho, name="inner_rho")
    optimizer = GAM(params, base=base, rho=rho, every=every, only=only, **settings)
    optimizer.inner_rho = inner_rho
    optimizer.gamma = gamma
    return optimizer
