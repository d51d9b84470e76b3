r"""MSAM: the gradient a fixed way down the momentum, at the price of the base optimizer.

.. math::
    g_t = \nabla L\left(w_t - \rho \, v_t / (\|v_t\|_2 + 10^{-12})\right), \qquad
    w_{t+1}, v_{t+1} = \mathrm{base}(w_t, v_t, g_t)

where v is the momentum buffer of SGD or the first moment of Adam, without its bias correction and
preconditioner (only the direction counts). The first step has no momentum and is plain. The sign is
minus: with rho equal to the length of the step that momentum alone would make, this is Nesterov's.

References:
    Becker, Altrock & Risse, "Momentum-SAM: Sharpness Aware Minimization without Computational
    Overhead", arXiv:2401.12033; rho 3 is the authors' setting for SGD on CIFAR-100.

Deviations from the paper:
    Weights are displaced within the step only; between steps they are clean, so nothing has to be
    moved back to act, evaluate or save. Weight decay sees the clean weights; in the authors' SGD it
    sees the displaced ones. Running statistics are those of the displaced weights, as theirs.
"""

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, DriverSettings, FlatOptimizer, Params, joint_norm
from mbrl_flat.optim.displacing import Displacing
from mbrl_flat.optim.evaluations import Evaluations
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius

BUFFERS = ("momentum_buffer", "exp_avg")
"""What optimizers call their momentum."""


class MSAM(Displacing):
    """One evaluation, displaced against the momentum."""

    clean_first = False

    def _gradient(self, evaluate: Evaluations) -> Tensor:
        chosen = self._chosen()
        momenta = {p: v for p in chosen if (v := self._momentum(p)) is not None}
        if not momenta:
            return evaluate()
        leaves = self._leaves({p: chosen[p] for p in momenta}, grads=False)
        buffers = list(momenta.values())
        shifts = leaves.times_radius(buffers, -1.0 / (joint_norm(buffers) + 1e-12))
        loss = self._evaluate_at(evaluate, leaves.params, shifts)
        self._report(leaves, shifts, 0.0)
        return loss

    def _momentum(self, param: nn.Parameter) -> Tensor | None:
        state = self.state.get(param, {})
        return next((state[name] for name in BUFFERS if state.get(name) is not None), None)


@register(
    "msam",
    paper="arXiv:2401.12033",
    evaluations=1,
    clean_first=False,
    neutral={"rho": 0.0},
    needs="a base with momentum",
)
def msam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 3.0,
    only: Sequence[str] | None = None,
    **settings: Unpack[DriverSettings],
) -> FlatOptimizer:
    """Displace against the momentum by ``rho``; see the module for the equations.

    Args:
        params: Parameters, named parameters or groups.
        base: Makes the optimizer whose momentum is used.
        rho: Radius, or a schedule of it.
        only: Which parameters are displaced.
        settings: See ``DriverSettings``.

    Returns:
        The optimizer.

    Raises:
        UserError: If the base has no momentum.
    """
    optimizer = MSAM(params, base=base, rho=rho, only=only, **settings)
    if "betas" not in optimizer.defaults and not optimizer.defaults.get("momentum"):
        raise UserError(
            f"msam displaces along the momentum of its base, and {type(optimizer.base).__name__} "
            f"has none; set its momentum (such as 0.9) or use adam."
        )
    return optimizer
