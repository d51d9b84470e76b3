r"""MSAM: the gradient a fixed way down the momentum, at the price of the base optimizer.

.. math::
    g_t = \nabla L\left(w_t - \rho \, v_t / (\|v_t\|_2 + 10^{-12})\right), \qquad
    w_{t+1}, v_{t+1} = \mathrm{base}(w_t, v_t, g_t)

where v is the momentum buffer of SGD or the first moment of Adam, without its bias correction and
preconditioner (only the direction counts). The first step has no momentum and is plain. The sign is
minus: with rho equal to the length of the step that momentum alone would make, this is Nesterov's.

How to choose rho:
    Ten to fifteen times SAM's: the authors take 3 where they take 0.2 for SAM, and 3 to 10 with
    AdamW, for which they switch it on after the warm-up (``schedules.WarmUp(delay=...)``). That is
    for images: on TD-MPC2 with Adam 0.01 earned more than 0.03 and 0.1.

References:
    Becker, Altrock & Risse, "Momentum-SAM: Sharpness Aware Minimization without Computational
    Overhead", arXiv:2401.12033; rho 3 is the authors' setting for SGD on CIFAR-100.

Deviations from the paper:
    Weights are perturbed within the step only; between steps they are clean, so nothing has to be
    moved back to act, evaluate or save. As the authors do, we subtract what was added, which is
    right up to one rounding and needs no memory; ``restore=exact`` copies. Weight decay sees the
    clean weights; in the authors' SGD it sees the perturbed ones. Running statistics are those of
    the perturbed weights, as theirs.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Unpack

from torch import Tensor, nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.base import BaseFactory, FlatOptimizer, Params, StepOptions
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.perturbation import Perturbation, added_and_subtracted
from mbrl_flat.optim.perturbing import PerturbingOptimizer
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius

BUFFERS = ("momentum_buffer", "exp_avg")
"""What optimizers call their momentum."""


class MSAM(PerturbingOptimizer):
    """One evaluation, perturbed against the momentum."""

    clean_first = False

    restore: Literal["subtract", "exact"] = "subtract"

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        chosen = self._chosen_now()
        momenta = {p: v for p in chosen if (v := self._momentum(p)) is not None}
        if not momenta:
            return evaluate()
        selection = self._selected({p: chosen[p] for p in momenta}, grads=False)
        buffers = list(momenta.values())
        perturbation = self._report(selection.params, -selection.along(buffers))
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
        return next((state[name] for name in BUFFERS if state.get(name) is not None), None)


@register(
    "msam",
    paper="arXiv:2401.12033",
    evaluations=1,
    memory=0,
    clean_first=False,
    neutral={"rho": 0.0},
    exact_restore=False,
    needs="a base with momentum",
)
def msam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 3.0,
    restore: Literal["subtract", "exact"] = "subtract",
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """Perturb against the momentum by ``rho``; see the module for the equations.

    Args:
        params: Parameters, named parameters or groups.
        base: Makes the optimizer whose momentum is used.
        rho: Radius, or a schedule of it.
        restore: How the weights come back: ``subtract`` what was added, as the authors do, which
            needs no memory and is right up to one rounding; or ``exact``, from a copy. Half
            precision always takes the copy.
        every: Perturb in every k-th step.
        only: Which parameters are perturbed.
        settings: See ``StepOptions``.

    Returns:
        The optimizer.

    Raises:
        UserError: If the base has no momentum.
        UnknownNameError: If there is no such way to restore.
    """
    if restore not in ("subtract", "exact"):
        raise UnknownNameError("restore", restore, ["subtract", "exact"], where="msam")
    optimizer = MSAM(params, base=base, rho=rho, every=every, only=only, **settings)
    optimizer.restore = restore
    if "betas" not in optimizer.defaults and not optimizer.defaults.get("momentum"):
        raise UserError(
            f"msam perturbs along the momentum of its base, and {type(optimizer.base).__name__} "
            f"has none; set its momentum (such as 0.9) or use adam."
        )
    return optimizer
