r"""SASSHA: SAM with steps scaled by the curvature at the perturbed point.

.. math::
    g' &= \nabla L(w + \epsilon), \qquad
    h = z \odot \frac{\nabla L(w + \epsilon + \delta z) - g'}{\delta}, \quad z_i = \pm 1, \\
    m &\leftarrow \beta_1 m + (1 - \beta_1) g', \qquad
    D \leftarrow \beta_2 D + (1 - \beta_2) |h| \quad \text{(every k-th step)}, \\
    w &\leftarrow (1 - \eta \lambda) w - \frac{\eta}{1 - \beta_1^t}
        \frac{m}{\sqrt{D / (1 - \beta_2^s)} + \varepsilon}

with SAM's epsilon; h is Hutchinson's estimate of the diagonal of the Hessian, and s the step t of
the last estimate. The square root and the absolute value keep steps bounded where curvature is
small or negative.

How to choose rho:
    0.1 to 0.6 in the authors' recipes for images, at rates of 0.1 to 0.3.

References:
    Shin et al., "SASSHA: Sharpness-Aware Adaptive Second-Order Optimization with Stable Hessian
    Approximation", ICML 2025, arXiv:2502.18153, and the authors' code: lr 0.15, betas 0.9 and
    0.999, epsilon 1e-4 and an estimate every 10 steps are its defaults; rho 0.2 is one of its
    recipes.

Deviations from the paper:
    The product of Hessian and z is a difference of gradients, so that any closure will do; the
    authors differentiate twice. The power of D is 1/2 throughout. With
    ``micro_batches=each`` the estimate is that of the last micro-batch.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.norms import is_finite
from mbrl_flat.optim.parameters import ParamGroup
from mbrl_flat.optim.parameterwise import ParameterwiseUpdate
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import gradient_ascent


class SASSHAUpdate(ParameterwiseUpdate):
    """The last three equations; ``curvature`` holds new estimates |h|."""

    def __init__(self, groups: list[ParamGroup], defaults: dict[str, Any]) -> None:
        super().__init__(groups, defaults)
        self.curvature: dict[nn.Parameter, Tensor] = {}

    def _move(self, param: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[param], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["estimated"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(param)
            state["hessian"] = torch.zeros_like(param)
        state["step"] += 1
        if param in self.curvature:
            state["hessian"].lerp_(self.curvature[param], 1.0 - beta2)
            state["estimated"].copy_(state["step"])
        average = state["exp_avg"].lerp_(grad, 1.0 - beta1)
        known = max(1.0 - beta2 ** float(state["estimated"]), 1e-30)
        spread = (state["hessian"] / known).sqrt_().add_(group["eps"])
        param.mul_(1.0 - group["lr"] * group["weight_decay"])
        rate = group["lr"] / (1.0 - beta1 ** float(state["step"]))
        param.addcdiv_(average, spread, value=-rate)


@register("sassha", paper="arXiv:2502.18153", evaluations=2.1, memory=3)
class SASSHA(RadiusOptimizer):
    """SAM with second-order steps.

    Attributes:
        lr: Learning rate eta, at least 0.
        rho: Radius of the perturbation of the weights, at least 0.
        betas: Decay of gradient and curvature.
        eps: Guard of the division.
        weight_decay: Decay of the weights, apart from the gradient.
        refresh: Steps between estimates of the curvature.
        difference: The delta of the equations.
    """

    lr: float = setting(0.15, "[0, inf)")
    rho: Radius = 0.2
    betas: tuple[float, float] = setting((0.9, 0.999), "[0, 1)")
    eps: float = setting(1e-4, "(0, inf)")
    weight_decay: float = setting(0.0, "[0, inf)")
    refresh: int = setting(10, "[1, inf)")
    difference: float = setting(1e-3, "(0, inf)")

    refuses_local = "sassha averages over processes with sync=global, not sync=local."

    def _make_base(self, groups: list[ParamGroup], *base: Any) -> torch.optim.Optimizer:
        del base
        names = ("lr", "eps", "weight_decay")
        settings = {name: getattr(self, name) for name in names}
        return SASSHAUpdate(groups, {**settings, "betas": tuple(self.betas)})

    def _begin(self) -> None:
        super()._begin()
        self.base_optimizer.curvature = {}

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        loss = evaluate()
        params: list[Tensor] = list(self._params_with_grad())
        if not is_finite(loss, [p.grad for p in params if p.grad is not None]):
            return loss
        selection = self._selected(self._chosen_now())
        shifts = dict.fromkeys(params, torch.zeros(()))
        if selection.params:
            ascent = self._report(selection.params, gradient_ascent(selection))
            shifts |= dict(zip(selection.params, ascent.tensors(), strict=True))
            del selection
            perturbed_loss = self._evaluate_at(evaluate, list(shifts), _of(shifts))
            self.last["perturbed_gap"] = perturbed_loss - loss
        # Weights of a group that was added in between would be divided by a curvature of zero.
        fresh = any(param not in self.base_optimizer.state for param in params)
        if fresh or self.steps % self.refresh == 0:
            self._estimate(evaluate, shifts)
        return loss

    def _estimate(self, evaluate: ClosureEvaluator, shifts: dict[Tensor, Tensor]) -> None:
        """Estimate the curvature, and leave the gradients of before in ``.grad``."""
        before = self._grads()
        signs = {
            p: torch.empty_like(p).bernoulli_(0.5, generator=self.generator).mul_(2.0).sub_(1.0)
            for p in shifts
        }
        there = {p: shift + self.difference * signs[p] for p, shift in shifts.items()}
        self._evaluate_at(evaluate, list(there), _of(there))
        after = self._grads()
        for param, grad in before.items():
            if param in after and param in signs:
                change = (after[param] - grad) / self.difference
                self.base_optimizer.curvature[param] = change.mul_(signs[param]).abs_()
        for param in self._params():
            param.grad = before.get(param)


def _of(shifts: Mapping[Tensor, Tensor]) -> Perturbation:
    return Perturbation.of([shift.expand_as(param) for param, shift in shifts.items()])
