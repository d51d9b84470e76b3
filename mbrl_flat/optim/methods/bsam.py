r"""bSAM: SAM as a relaxation of Bayes; noise and ascent are both shaped by a learned precision.

.. math::
    g_1 &= \nabla L\!\left(w + z / \sqrt{N s}\right), \quad z \sim N(0, I), \qquad
    g_2 = \nabla L(w + \rho \, g_1 / s), \\
    m &\leftarrow \beta_1 m + (1 - \beta_1)(g_2 + \delta w), \qquad
    w \leftarrow w - \eta \, m / s, \\
    s &\leftarrow \beta_2 s + (1 - \beta_2)(\sqrt{s} \, |g_1| + \gamma + \delta)

entry by entry with :math:`\delta = \text{prior} / N`; the step uses the old s, and the ascent
starts from the mean w and is not normalised.

How to choose rho:
    It multiplies an unnormalised direction, so it is not comparable with SAM's: 0.01 throughout the
    authors' recipes. Change the prior precision or ``num_data`` before it.

References:
    Moellenhoff & Khan, "SAM as an Optimal Relaxation of Bayes", ICLR 2023, arXiv:2210.01620;
    lr 0.5, betas 0.9 and 0.999, rho 0.01, prior precision 40 and damping 0.1 are those of the
    authors' code.

Deviations from the paper:
    The first s is 1 by our choice. Running statistics move in the first evaluation only; in the
    authors' code in both. The batch is not split unless several closures are given with
    ``micro_batches=each``; the authors split it in eight.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.optim.closure_evaluator import Closure, ClosureEvaluator
from mbrl_flat.optim.groups import selected
from mbrl_flat.optim.norms import is_finite
from mbrl_flat.optim.parameters import ParamGroup
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer
from mbrl_flat.optim.posterior import Posterior
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting


class BSAMUpdate(Posterior):
    """The last three equations; ``statistic`` holds |g_1|."""

    count_key = "num_data"
    start_key = "init_precision"
    curvature_key = "precision"

    def _move(self, param: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self._state(param, group), group["betas"]
        delta, old = group["delta"], state["precision"]
        state["momentum"].lerp_(grad + delta * param, 1.0 - beta1)
        param.sub_(group["lr"] * state["momentum"] / old)
        target = old.sqrt() * self.statistic[param] + group["damping"] + delta
        state["precision"] = beta2 * old + (1.0 - beta2) * target


@register("bsam", paper="arXiv:2210.01620", evaluations=2, memory=4)
class BSAM(RadiusOptimizer):
    """Two evaluations: under noise, and up the slope found there.

    Attributes:
        lr: Learning rate eta, at least 0.
        rho: Radius, or a schedule of it.
        betas: Decay of momentum and precision.
        prior: Precision of the Gaussian prior, at least 0; over ``num_data`` it is the decay.
        damping: The gamma of the equations.
        num_data: Number N of training examples.
        init_precision: The first s.
        every: Take g_1 under noise and g_2 up the slope in every k-th step; in the others both
            are the gradient at the weights, of one evaluation.
        only: Which parameters get noise and ascent.
    """

    lr: float = setting(0.5, "[0, inf)")
    rho: Radius = 0.01
    betas: tuple[float, float] = setting((0.9, 0.999), "[0, 1)")
    prior: float = setting(40.0, "[0, inf)")
    damping: float = setting(0.1, "[0, inf)")
    num_data: float = setting(5e4, "(0, inf)")
    init_precision: float = setting(1.0, "(0, inf)")

    clean_first = False
    refuses_local = "bsam averages over processes with sync=global, not sync=local."
    _parts = 0

    def _make_base(self, groups: list[ParamGroup], *base: Any) -> torch.optim.Optimizer:
        del base
        names = ("lr", "damping", "num_data", "init_precision")
        settings = {name: getattr(self, name) for name in names}
        delta = self.prior / self.num_data
        return BSAMUpdate(groups, {**settings, "betas": tuple(self.betas), "delta": delta})

    def _final_gradient(
        self, closure: Closure | Sequence[Closure], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        self.base.statistic, self._parts = {}, 0
        loss, count = super()._final_gradient(closure, scaler)
        for total in self.base.statistic.values():
            total.div_(self._parts)
        return loss, count

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        self._parts += 1
        groups = {p: group for group in self.param_groups for p in group["params"]}
        wanted = selected(self.param_groups, self.only) if self._perturbs else set()
        trained = {p: group for p, group in groups.items() if p.requires_grad and p in wanted}
        if not trained:
            loss = evaluate()
        else:
            noise = [
                self.base.sample_(torch.empty_like(p), p, group, self.generator)
                for p, group in trained.items()
            ]
            loss = self._evaluate_at(evaluate, list(trained), Perturbation.of(noise))
            del noise
        first = self._grads()
        if not is_finite(loss, list(first.values())):
            return loss
        shifts = {
            p: g * (self._radius(groups[p]) / self.base.curvature(p, groups[p]))
            for p, g in first.items()
            if p in trained
        }
        if shifts:
            ascent = self._report(list(shifts), Perturbation.of(list(shifts.values())))
            self._evaluate_at(evaluate, list(shifts), ascent)
        for param, grad in first.items():
            total = self.base.statistic.setdefault(param, torch.zeros_like(grad))
            total.add_(grad.abs())
        return loss
