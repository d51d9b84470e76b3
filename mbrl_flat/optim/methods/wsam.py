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

from typing import Literal

import torch
from torch import Tensor

from mbrl_flat.errors import UserError
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.methods.gnp import mix
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import MethodState, SharpnessAware


@register("wsam", paper="arXiv:2305.15817", evaluations=2, memory=2, neutral={"rho": 0.0})
class WSAM(SharpnessAware):
    """WSAM.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        gamma: Weight of the sharpness.
        form: Whether the sharpness term goes through the base (``coupled``) or past it.
    """

    gamma: float = setting(0.9, "[0, 1)")
    form: Literal["decoupled", "coupled"] = "decoupled"

    needs_clean = True
    _parts = 0

    def _check(self) -> None:
        if self.form == "decoupled":
            self.refuses_local = "wsam with form=decoupled needs sync=global or form=coupled."
            if self.clip_scope == "module":
                raise UserError("wsam with form=decoupled needs clip_scope=joint or form=coupled.")
        super()._check()

    @property
    def alpha(self) -> float:
        """Weight of the perturbed gradient, or of what it adds."""
        return self.gamma / (1.0 - self.gamma)

    def combine(
        self, clean: list[Tensor], perturbed: list[Tensor], method_state: list[MethodState]
    ) -> list[Tensor]:
        """The mixture; or the clean gradient, and what SAM would add after the base's step."""
        if self.form == "coupled":
            return mix(clean, perturbed, self.alpha)
        for a, b, own in zip(clean, perturbed, method_state, strict=True):
            difference = b.sub_(a)
            if "sharpness" in own:
                own["sharpness"].add_(difference)
            else:
                own["sharpness"] = difference
        return clean

    def _begin(self) -> None:
        super()._begin()
        self._parts = 0
        for own in self.method_state.values():
            own.pop("sharpness", None)

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        self._parts += 1
        return super()._gradient(evaluate)

    def _apply(self) -> None:
        super()._apply()
        factor: Tensor | float = self.alpha / max(self._parts, 1)
        if self.max_grad_norm is not None:
            norm = torch.as_tensor(self.last["grad_norm"])
            factor = factor * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for group in self.param_groups:
            rate = -group["lr"] if group.get("maximize") else group["lr"]
            for param in group["params"]:
                sharpness = self.method_state.get(param, {}).pop("sharpness", None)
                if sharpness is not None:
                    param.sub_(sharpness * (rate * factor))
