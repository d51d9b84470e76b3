r"""Friendly SAM: SAM along what is left of the gradient without its moving average.

.. math::
    r_t = g_t - \sigma m_{t-1}, \qquad
    m_t = \lambda m_{t-1} + (1 - \lambda) g_t, \quad m_{-1} = 0, \qquad
    \epsilon = \rho \, r_t / (\|r_t\|_2 + 10^{-12}), \qquad d = \nabla L(w + \epsilon)

Sigma is ``mean_share``, lambda is ``decay``; ``mean_share=0`` is SAM.

How to choose rho:
    As for SAM; the authors' script for CIFAR-100 has 0.2.

References:
    Li et al., "Friendly Sharpness-Aware Minimization", CVPR 2024, arXiv:2403.12350; sigma 1 and
    lambda 0.9 are the defaults of the authors' class.

Deviations from the paper:
    As in the authors' code, the average is subtracted before it takes in the new gradient. With
    ``micro_batches=each`` it takes in the gradient of every micro-batch, one after the other: it
    spans as many fewer steps as there are micro-batches, and their order counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@dataclass(frozen=True, kw_only=True)
class ResidualAscent:
    """Perturbation along the part of the gradient that is new."""

    sigma: float
    decay: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise UserError(f"decay must lie in [0, 1), got {self.decay}.")

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """``rho r / |r|``."""
        residuals: list[Tensor] = []
        for grad, memory in zip(selection.grads, selection.memory, strict=True):
            mean = memory.setdefault("mean", torch.zeros_like(grad))
            residuals.append(torch.sub(grad, mean, alpha=self.sigma))
            mean.mul_(self.decay).add_(grad, alpha=1.0 - self.decay)
        return selection.along(residuals)


@register("friendly_sam", paper="arXiv:2403.12350", evaluations=2, memory=3, neutral={"rho": 0.0})
def friendly_sam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.05,
    mean_share: float = 1.0,
    decay: float = 0.9,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """Friendly SAM; ``mean_share`` is the sigma and ``decay`` the lambda of the paper."""
    return SharpnessAware(
        params,
        base=base,
        perturbation=ResidualAscent(sigma=mean_share, decay=decay),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
