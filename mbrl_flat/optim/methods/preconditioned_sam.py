r"""Preconditioned SAM: SAM's perturbation in the metric of Adam.

.. math::
    \epsilon_t = \rho \, \frac{P_t g_t}{\|P_t g_t\|_2 + 10^{-12}}, \qquad
    P_t = \operatorname{diag}(\sqrt{v_{t-1}} + \varepsilon)^{-1}, \qquad
    d = \nabla L(w + \epsilon_t)

where v is the second moment of the base's gradients (Adam's ``exp_avg_sq``); without one, an
average of the squared gradients at the weights with decay ``decay``. The first step has none and is
SAM's. Entries with small gradients are perturbed as far as those with large ones, so that the
output layer of a network with cross-entropy, whose gradients are the largest, does not take all of
the radius.

How to choose rho:
    Begin with SAM's. The perturbation spreads over many more entries, so the same length changes
    the loss less: larger radii are usual.

References:
    Singh et al., "Avoiding Spurious Sharpness Minimization Broadens Applicability of SAM",
    ICML 2025, arXiv:2502.02407.

Deviations from the paper:
    The second moment is that before this step. There was no code of the authors to compare with;
    the default epsilon of 1e-8 is Adam's.
"""

import torch
from torch import Tensor

from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@register(
    "preconditioned_sam", paper="arXiv:2502.02407", evaluations=2, memory=3, neutral={"rho": 0.0}
)
class PreconditionedSAM(SharpnessAware):
    """SAM in Adam's metric.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        eps: The epsilon of the equations.
        decay: Decay of the squares where the base keeps none.
    """

    eps: float = setting(1e-8, "(0, inf)")
    decay: float = setting(0.999, "[0, 1)")

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``rho P g / |P g|``."""
        squares = [state.get("exp_avg_sq") for state in selection.base_state]
        if any(v is None for v in squares):
            squares = self._own_squares(selection)
        known = [v for v in squares if v is not None]
        if len(known) < len(squares):
            return selection.along(selection.grads)
        pairs = zip(selection.grads, known, strict=True)
        return selection.along([g / v.sqrt().add_(self.eps) for g, v in pairs])

    def _own_squares(self, selection: SelectedParams) -> list[Tensor | None]:
        """Averages from before this step; this one's gradients are added to them."""
        before: list[Tensor | None] = []
        for grad, own in zip(selection.grads, selection.method_state, strict=True):
            old = own.get("squares")
            before.append(old)
            start = torch.zeros_like(grad) if old is None else old
            own["squares"] = start.lerp(grad.square(), 1.0 - self.decay)
        return before
