r"""SSAM-F: SAM that perturbs only the parameters with the largest Fisher information.

.. math::
    \epsilon = \rho \, m \odot g / (\|g\|_2 + 10^{-12}), \qquad d = \nabla L(w + \epsilon)

where the mask m marks the share ``1 - sparsity`` of entries with the largest sum of squared
gradients since the last refresh; the norm is over all entries, masked or not. ``sparsity=0`` is
SAM.

How to choose rho:
    As for SAM: the norm is over all entries, so that masking shortens the perturbation. Raise rho
    by 1 / sqrt(1 - sparsity) to keep its length where the masked entries hold little of the
    gradient.

References:
    Mi et al., "Make Sharpness-Aware Minimization Stronger: A Sparsified Perturbation Approach",
    NeurIPS 2022, arXiv:2210.05177, and the authors' code.

Deviations from the paper:
    The Fisher information sums squares of batch gradients, not of single examples, which a closure
    does not give. The first mask is made in the first step; the authors' code perturbs nothing
    until the first refresh. ``refresh`` counts steps, 100 being our choice; the paper counts
    epochs. Where not every step perturbs, a new mask is made in the first that does once
    ``refresh`` steps have passed.
"""

import torch

from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@register("ssam", paper="arXiv:2210.05177", evaluations=2, memory=3.25, neutral={"rho": 0.0})
class SSAM(SharpnessAware):
    """Sparse SAM.

    What it keeps for each parameter: ``fisher``, the sum of squared gradients, ``mask``, and
    ``masked_at``, the step of that mask.

    Attributes:
        sparsity: Share of the entries that stay in place; 0 is SAM.
        refresh: Steps between masks.
    """

    sparsity: float = setting(0.5, "[0, 1)")
    refresh: int = setting(100, "[1, inf)")

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``rho m g / |g|``."""
        for grad, own in zip(selection.grads, selection.method_state, strict=True):
            own["fisher"] = own.get("fisher", torch.zeros_like(grad)) + grad.square()
        if any("mask" not in m for m in selection.method_state) or self._is_due(selection):
            self._refresh(selection)
        masked = [
            g * m["mask"] for g, m in zip(selection.grads, selection.method_state, strict=True)
        ]
        return selection.times_radius(masked, 1.0 / (float(selection.grad_norm) + 1e-12))

    def _is_due(self, selection: SelectedParams) -> bool:
        # States of earlier revisions lack the step; their masks were made at multiples.
        before = (selection.step - 1) // self.refresh * self.refresh
        known = [int(m["masked_at"]) for m in selection.method_state if "masked_at" in m]
        return selection.step - max(known, default=before) >= self.refresh

    def _refresh(self, selection: SelectedParams) -> None:
        fisher = torch.cat([own["fisher"].flatten() for own in selection.method_state])
        kept = max(1, round((1.0 - self.sparsity) * fisher.numel()))
        mask = torch.zeros_like(fisher, dtype=torch.bool)
        mask[fisher.topk(kept).indices] = True
        parts = mask.split([grad.numel() for grad in selection.grads])
        for grad, own, part in zip(selection.grads, selection.method_state, parts, strict=True):
            own["mask"] = part.view_as(grad).clone()
            own["fisher"] = torch.zeros_like(grad)
            own["masked_at"] = torch.tensor(selection.step)
