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

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import FlatOptimizer, Params, StepOptions
from mbrl_flat.optim.closure_evaluator import Closure, ClosureEvaluator
from mbrl_flat.optim.groups import selected
from mbrl_flat.optim.norms import is_finite
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing import PerturbingOptimizer
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius


class BSAMUpdate(torch.optim.Optimizer):
    """The last three equations; holds momentum and precision."""

    def __init__(
        self,
        params: Params,
        *,
        lr: float,
        betas: tuple[float, float],
        prior: float,
        damping: float,
        num_data: float,
        init_precision: float,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "delta": prior / num_data,
            "damping": damping,
            "num_data": num_data,
            "init_precision": init_precision,
        }
        super().__init__(params, defaults)
        self.noisy: dict[nn.Parameter, Tensor] = {}

    def precision(self, param: nn.Parameter, group: Mapping[str, Any]) -> Tensor:
        """The s of the equations."""
        return self._state(param, group)["precision"]

    def _state(self, param: nn.Parameter, group: Mapping[str, Any]) -> dict[str, Any]:
        state = self.state[param]
        if not state:
            state["momentum"] = torch.zeros_like(param)
            state["precision"] = torch.full_like(param, group["init_precision"])
        return state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move weights and precision by the final gradient and ``noisy``, which holds |g_1|."""
        del closure
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None and param in self.noisy:
                    self._move(param, param.grad, group)

    def _move(self, param: nn.Parameter, grad: Tensor, group: Mapping[str, Any]) -> None:
        state, (beta1, beta2) = self._state(param, group), group["betas"]
        delta, old = group["delta"], state["precision"]
        state["momentum"].lerp_(grad + delta * param, 1.0 - beta1)
        param.sub_(group["lr"] * state["momentum"] / old)
        target = old.sqrt() * self.noisy[param] + group["damping"] + delta
        state["precision"] = beta2 * old + (1.0 - beta2) * target


class BSAM(PerturbingOptimizer):
    """Two evaluations: under noise, and up the slope found there."""

    clean_first = False
    refuses_local = "bsam averages over processes with sync=global, not sync=local."

    base: BSAMUpdate
    _parts: int = 0

    def _final_gradient(
        self, closure: Closure | Sequence[Closure], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        self.base.noisy, self._parts = {}, 0
        loss, count = super()._final_gradient(closure, scaler)
        for total in self.base.noisy.values():
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
                torch.empty_like(p).normal_(generator=self.generator)
                * (group["num_data"] * self.base.precision(p, group)).rsqrt()
                for p, group in trained.items()
            ]
            loss = self._evaluate_at(evaluate, list(trained), Perturbation.of(noise))
            del noise
        first = self._grads()
        if not is_finite(loss, list(first.values())):
            return loss
        perturbation = {
            p: g * (self._radius(groups[p]) / self.base.precision(p, groups[p]))
            for p, g in first.items()
            if p in trained
        }
        if perturbation:
            ascent = self._report(list(perturbation), Perturbation.of(list(perturbation.values())))
            self._evaluate_at(evaluate, list(perturbation), ascent)
        for param, grad in first.items():
            total = self.base.noisy.setdefault(param, torch.zeros_like(grad))
            total.add_(grad.abs())
        return loss


@register("bsam", paper="arXiv:2210.01620", evaluations=2, memory=4, clean_first=False)
def bsam(
    params: Params,
    *,
    lr: float = 0.5,
    rho: Radius = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    prior: float = 40.0,
    damping: float = 0.1,
    num_data: float = 5e4,
    init_precision: float = 1.0,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """Bayesian SAM; see the module for the equations.

    Args:
        params: Parameters, named parameters or groups.
        lr: Rate eta.
        rho: Radius, or a schedule of it.
        betas: Decay of momentum and precision.
        prior: Prior precision.
        damping: The gamma of the equations.
        num_data: Number N of training examples.
        init_precision: The first s.
        every: Take g_1 under noise and g_2 up the slope in every k-th step; in the others both
            are the gradient at the weights, of one evaluation.
        only: Which parameters get noise and ascent.
        settings: See ``StepOptions``.

    Returns:
        The optimizer.

    Raises:
        UserError: If a setting is out of its range.
    """
    if not num_data > 0.0 or not init_precision > 0.0 or prior < 0.0 or damping < 0.0:
        raise UserError(
            f"bsam needs num_data > 0, init_precision > 0, prior >= 0 and damping >= 0, got "
            f"{num_data}, {init_precision}, {prior} and {damping}."
        )
    base = partial(
        BSAMUpdate,
        lr=lr,
        betas=(betas[0], betas[1]),
        prior=prior,
        damping=damping,
        num_data=num_data,
        init_precision=init_precision,
    )
    return BSAM(params, base=base, rho=rho, every=every, only=only, **settings)
