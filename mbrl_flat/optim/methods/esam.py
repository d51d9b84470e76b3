r"""ESAM: SAM that displaces a random choice of tensors in every step.

.. math::
    \epsilon_i = \frac{\rho}{\beta} \, \frac{g_i}{\|g_S\|_2 + 10^{-12}} \quad (i \in S), \qquad
    d = \nabla L(w + \epsilon)

where every tensor is in S with probability beta. Gradients of the others are not formed in the
first evaluation. ``beta=1`` is SAM.

References:
    Du et al., "Efficient Sharpness-aware Minimization for Improved Training of Neural Networks",
    ICLR 2022, arXiv:2110.03141, stochastic weight perturbation; beta 0.5 as in the code of
    arXiv:2401.12033.

Deviations from the paper:
    The second half of the method, sharpness-sensitive data selection, is left out: it needs the
    loss of every example and a closure for a part of the batch. If chance chooses no tensor, all
    are displaced, as far.
"""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, DriverSettings, Params
from mbrl_flat.optim.methods.sam import GradientAscent
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import SharpnessAware


class ESAM(SharpnessAware):
    """SharpnessAware with a new random choice of tensors in every step."""

    beta: float = 1.0

    def _chosen(self) -> dict[nn.Parameter, float]:
        candidates = super()._chosen()
        if not candidates or self.beta == 1.0:
            return candidates
        device = self.generator.device
        draws = torch.rand(len(candidates), generator=self.generator, device=device).tolist()
        scaled = {param: radius / self.beta for param, radius in candidates.items()}
        chosen = {
            p: r for (p, r), draw in zip(scaled.items(), draws, strict=True) if draw < self.beta
        }
        return chosen or scaled


@register("esam", paper="arXiv:2110.03141", evaluations=2, memory=1, neutral={"rho": 0.0})
def esam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.05,
    beta: float = 0.5,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[DriverSettings],
) -> SharpnessAware:
    """SAM on random tensors; see the module for the equations.

    Args:
        params: Parameters, named parameters or groups.
        base: Makes the optimizer that takes the final gradient.
        rho: Radius.
        beta: Probability of a tensor to be displaced, in (0, 1].
        every: Displace in every k-th step.
        only: Which parameters may be displaced.
        settings: See ``DriverSettings``.

    Returns:
        The optimizer.

    Raises:
        UserError: If beta is no such probability.
    """
    if not 0.0 < beta <= 1.0:
        raise UserError(f"beta must lie in (0, 1], got {beta}; beta=1 is SAM.")
    optimizer = ESAM(
        params,
        base=base,
        perturbation=GradientAscent(),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
    optimizer.beta = beta
    return optimizer
