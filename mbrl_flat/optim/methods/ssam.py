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
    epochs. Where not every step perturbs, the mask is recomputed in the first that does once
    ``refresh`` steps have passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@dataclass(frozen=True, kw_only=True)
class SparseAscent:
    """SAM's perturbation under a mask.

    What it keeps for each parameter: ``fisher``, the sum of squared gradients, ``mask``, and
    ``masked_at``, the step of that mask.
    """

    sparsity: float
    refresh: int

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0:
            raise UserError(f"sparsity must lie in [0, 1), got {self.sparsity}.")
        if self.refresh < 1:
            raise UserError(f"refresh must be at least 1, got {self.refresh}.")

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """``rho m g / |g|``."""
        for grad, memory in zip(selection.grads, selection.memory, strict=True):
            memory["fisher"] = memory.get("fisher", torch.zeros_like(grad)) + grad.square()
        if any("mask" not in m for m in selection.memory) or self._is_due(selection):
            self._refresh(selection)
        masked = [g * m["mask"] for g, m in zip(selection.grads, selection.memory, strict=True)]
        return selection.times_radius(masked, 1.0 / (float(selection.grad_norm) + 1e-12))

    def _is_due(self, selection: SelectedParams) -> bool:
        # States of earlier revisions lack the step; their masks were made at multiples.
        before = (selection.step - 1) // self.refresh * self.refresh
        known = [int(m["masked_at"]) for m in selection.memory if "masked_at" in m]
        return selection.step - max(known, default=before) >= self.refresh

    def _refresh(self, selection: SelectedParams) -> None:
        fisher = torch.cat([memory["fisher"].flatten() for memory in selection.memory])
        kept = max(1, round((1.0 - self.sparsity) * fisher.numel()))
        mask = torch.zeros_like(fisher, dtype=torch.bool)
        mask[fisher.topk(kept).indices] = True
        parts = mask.split([grad.numel() for grad in selection.grads])
        for grad, memory, part in zip(selection.grads, selection.memory, parts, strict=True):
            memory["mask"] = part.view_as(grad).clone()
            memory["fisher"] = torch.zeros_like(grad)
            memory["masked_at"] = torch.tensor(selection.step)


@register("ssam", paper="arXiv:2210.05177", evaluations=2, memory=3.25, neutral={"rho": 0.0})
def ssam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.05,
    sparsity: float = 0.5,
    refresh: int = 100,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """Sparse SAM; ``sparsity`` is the share that stays, ``refresh`` the steps between masks."""
    return SharpnessAware(
        params,
        base=base,
        perturbation=SparseAscent(sparsity=sparsity, refresh=refresh),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
