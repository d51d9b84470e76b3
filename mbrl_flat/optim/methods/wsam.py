r"""WSAM: the sharpness weighs more or less than in SAM, and may bypass the base optimizer.

.. math::
    \alpha = \gamma / (1 - \gamma), \qquad
    \text{coupled:} \quad d = (1 - \alpha) g + \alpha g', \qquad
    \text{decoupled:} \quad w \leftarrow \mathrm{base}(w, g) - \eta \, \alpha (g' - g)

with SAM's :math:`g'`. The coupled form with ``gamma=0.5`` is SAM.

How to choose rho:
    As for SAM. gamma weighs the same term: tune rho at gamma 0.5, which is SAM, then gamma within
    0.8 to 0.95.

References:
    Yue et al., "Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization
    Term", KDD 2023, arXiv:2305.15817; gamma 0.9 as in the port of pytorch-optimizer.

Deviations from the paper:
    If the gradient is clipped, the decoupled term shrinks by the same factor.
"""

from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.closure_evaluator import Closure, ClosureEvaluator
from mbrl_flat.optim.methods.gnp import Mix
from mbrl_flat.optim.methods.sam import GradientAscent
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Memory, SharpnessAware


class KeepDifference:
    """The clean gradient; what SAM would add is left for after the base's step."""

    needs_clean = True

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Return ``clean``."""
        for a, b, own in zip(clean, perturbed, memory, strict=True):
            difference = b.sub_(a)
            if "sharpness" in own:
                own["sharpness"].add_(difference)
            else:
                own["sharpness"] = difference
        return clean


class DecoupledWSAM(SharpnessAware):
    """SharpnessAware whose last word is ``-lr alpha (g' - g)``."""

    refuses_local = "wsam with form=decoupled needs sync=global or form=coupled."

    alpha: float = 0.0
    _parts: int = 0

    def _final_gradient(
        self, closure: Closure | Sequence[Closure], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        self._parts = 0
        for memory in self.memory.values():
            memory.pop("sharpness", None)
        return super()._final_gradient(closure, scaler)

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        self._parts += 1
        return super()._gradient(evaluate)

    def _apply(self) -> None:
        super()._apply()
        factor: Tensor | float = self.alpha / self._parts
        if self.max_grad_norm is not None:
            norm = torch.as_tensor(self.last["grad_norm"])
            factor = factor * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for group in self.param_groups:
            for param in group["params"]:
                sharpness = self.memory.get(param, {}).pop("sharpness", None)
                if sharpness is not None:
                    param.sub_(sharpness * (group["lr"] * factor))


@register("wsam", paper="arXiv:2305.15817", evaluations=2, memory=2, neutral={"rho": 0.0})
def wsam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.05,
    gamma: float = 0.9,
    form: Literal["decoupled", "coupled"] = "decoupled",
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """WSAM; see the module for the equations.

    Args:
        params: Parameters, named parameters or groups.
        base: Makes the optimizer that takes the final gradient.
        rho: Radius.
        gamma: Weight of the sharpness in [0, 1).
        form: Whether the sharpness term goes through the base (``coupled``) or past it.
        every: Perturb in every k-th step.
        only: Which parameters are perturbed.
        settings: See ``StepOptions``.

    Returns:
        The optimizer.

    Raises:
        UserError: If gamma is not in [0, 1) or the form cannot be averaged as asked.
        UnknownNameError: If there is no such form.
    """
    if not 0.0 <= gamma < 1.0:
        raise UserError(f"gamma must lie in [0, 1), got {gamma}; gamma=0.5 weighs as SAM does.")
    if form not in ("decoupled", "coupled"):
        raise UnknownNameError("form", form, ["decoupled", "coupled"], where="wsam")
    alpha = gamma / (1.0 - gamma)
    kind = DecoupledWSAM if form == "decoupled" else SharpnessAware
    optimizer = kind(
        params,
        base=base,
        perturbation=GradientAscent(),
        combine=KeepDifference() if form == "decoupled" else Mix(alpha=alpha),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
    if isinstance(optimizer, DecoupledWSAM):
        optimizer.alpha = alpha
    return optimizer
