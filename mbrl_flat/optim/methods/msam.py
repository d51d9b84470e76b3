r"""MSAM: the gradient a fixed distance down the momentum, at the cost of the base optimizer.

.. math::
    g_t = \nabla L\left(w_t - \rho \, v_t / (\|v_t\|_2 + 10^{-12})\right), \qquad
    w_{t+1}, v_{t+1} = \mathrm{base}(w_t, v_t, g_t)

where v is the momentum buffer of SGD or the first moment of Adam, without its bias correction and
preconditioner (only the direction counts). The first step has no momentum and is plain. The sign is
minus: with rho equal to the length of the step that momentum alone would make, this is Nesterov's.

How to choose rho:
    On TD-MPC2 with Adam 0.01, SAM's own radius: with one seed each it earned more than 0.03, and
    at 0.1 the agent hardly learned. On small classifiers 4 to 7 times SAM's was best here. The
    default of 3 is for images and SGD: the authors take 3 where they take 0.2 for SAM, and 3 to 10
    with AdamW, for which they switch it on after the warm-up (``schedules.WarmUp(delay=...)``).

References:
    Becker, Altrock & Risse, "Momentum-SAM: Sharpness Aware Minimization without Computational
    Overhead", arXiv:2401.12033; rho 3 is the authors' setting for SGD on CIFAR-100.

Deviations from the paper:
    Weights are perturbed within the step only; between steps they are clean, so nothing has to be
    moved back to act, evaluate or save. As the authors do, we subtract what was added, which is
    right up to one rounding and needs no memory; ``restore=exact`` copies. Weight decay sees the
    clean weights; in the authors' SGD it sees the perturbed ones, and their AdamW decays before it
    moves the weights back. Running statistics are those of
    the perturbed weights, as theirs. A momentum shorter than 1e-8, such as DAdaptLion's first, is
    scaled before the norm is guarded, so that the perturbation has the length rho.
"""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.perturbation import Perturbation, added_and_subtracted
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer, SelectedParams
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.with_base import HasBase

BUFFERS = (
    "momentum_buffer",
    "exp_avg",
    "exp_avg_1",
    "exp_avg_fast",
    "exp_avg1",
    "momentum",
    "mom",
    "moment",
    "m",
    "ema",
    "exp_avg_grad",
    "mov_avg_grad",
    "moments",
)
"""What optimizers call their momentum, the likeliest first."""
_FIRST_STEPS = 2
"""Steps after which a base has a momentum that is not zero."""
_TINY = 1e-8
"""Momenta below it are scaled first; DAdaptLion's first ones are 1e-9 of the gradient."""


@register(
    "msam",
    paper="arXiv:2401.12033",
    evaluations=1,
    memory=0,
    neutral={"rho": 0.0},
    exact_restore=False,
    needs="a base with momentum",
)
class MomentumSAM(HasBase, RadiusOptimizer):
    """One evaluation, perturbed against the momentum.

    Attributes:
        rho: Radius, or a schedule of it.
        restore: How the weights come back: ``subtract`` what was added, as the authors do, which
            needs no memory and is right up to one rounding; or ``exact``, from a copy. Half
            precision always takes the copy.
    """

    rho: Radius = 3.0
    restore: Literal["subtract", "exact"] = "subtract"

    clean_first = False
    follows_gradient = False  # A momentum of a base that maximises has its sense already.

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Refuse a base whose momentum is switched off; others show it in their first step."""
        super().__post_init__(params, *base)
        if all(
            group.get("momentum") == 0.0 and "betas" not in group for group in self.param_groups
        ):
            self._refuse("its momentum is 0")

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        chosen = self._chosen_now()
        momenta = {p: v for p in chosen if (v := self._momentum(p)) is not None}
        if not momenta:
            return evaluate()
        selection = self._selected({p: chosen[p] for p in momenta}, grads=False)
        along = _along(selection, list(momenta.values()))
        perturbation = self._report(selection.params, -along)
        self.zero_grad(set_to_none=True)
        with self._perturbed(selection.params, perturbation):
            return evaluate()

    def _perturbed(
        self, params: list[Tensor], perturbation: Perturbation
    ) -> AbstractContextManager[None]:
        # In half precision the rounding would be as large as the step.
        exact = self.restore == "exact" or any(p.dtype.itemsize < 4 for p in params)
        return (self.backup.perturbed if exact else added_and_subtracted)(params, perturbation)

    def _momentum(self, param: nn.Parameter) -> Tensor | None:
        state = self.state.get(param, {})
        for name in BUFFERS:
            value = state.get(name)
            if isinstance(value, Tensor) and value.shape == param.shape:
                return value.to(param) if value.dtype != param.dtype else value
        return None

    def _apply(self) -> None:
        super()._apply()
        if self.steps <= _FIRST_STEPS:
            self._check_momentum()

    def _check_momentum(self) -> None:
        """Refuse a base whose first steps left no momentum: the method would be the base."""
        moved = [p for p in self._chosen() if p.grad is not None and bool(p.grad.any())]
        momenta = [v for p in moved if (v := self._momentum(p)) is not None]
        begins = self.steps < _FIRST_STEPS  # ADOPT and SOAP only make it first.
        if not moved or any(begins or bool(torch.any(v != 0)) for v in momenta):
            return
        keys: list[Any] = sorted({str(key) for p in moved for key in self.state.get(p, {})})
        self._refuse(f"after its first steps it keeps {keys}")

    def _refuse(self, why: str) -> None:
        raise UserError(
            f"msam perturbs along the momentum of its base, and "
            f"{type(self.base_optimizer).__name__} has none: {why}. Set its momentum, such as 0.9, "
            "or choose a base with one, such as adam."
        )


def _along(selection: SelectedParams, momenta: list[Tensor]) -> Perturbation:
    """Along the momentum by rho, also where its length is as small as the guard against zero."""
    along = selection.along(momenta)
    if along.length is None or along.length > _TINY:
        return along
    largest = max(float(v.abs().max()) for v in momenta)
    return selection.along([v / largest for v in momenta]) if largest > 0.0 else along


MSAM = MomentumSAM
