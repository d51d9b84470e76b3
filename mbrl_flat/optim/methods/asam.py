r"""ASAM: the worst point of a ball that is as wide in every direction as the weight there is large.

.. math::
    \epsilon = \rho \, T^2 g / (\|T g\|_2 + 10^{-12}) \quad (l_2), \qquad
    \epsilon = \rho \, T \operatorname{sign}(g) \quad (l_\infty), \qquad
    d = \nabla L(w + \epsilon)

with :math:`T = |w| + \eta` entry by entry for weights and 1 for biases. With ``scope=layer`` it is
:math:`T = (1 + \eta) \|w_k\|_2` for the whole of tensor k. Rescaling the weights without changing
the function rescales the perturbation along with them.

How to choose rho:
    In units of the weights, so about ten times SAM's: 0.5 on CIFAR-10 and 1.0 on CIFAR-100 in the
    authors' code, both with biases at T = 1. Scaling biases and norm layers too needs still larger
    ones. Biases are known by their names: give the model, its parts or ``named_parameters()``. Of
    parameters without names every one counts as a weight. Sweep as for SAM.

References:
    Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep
    Neural Networks", ICML 2021, arXiv:2102.11600, and the authors' code: rho 0.5 for CIFAR-10 and
    1.0 for CIFAR-100, eta 0.01. The other balls are those of arXiv:2306.04226's code.

Deviations from the paper:
    Norms are guarded by 1e-12 instead of 1e-16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


@dataclass(frozen=True, kw_only=True)
class AdaptiveAscent:
    """Perturbation in the ball that is scaled by the weights."""

    eta: float = 0.01
    ball: Literal["l2", "linf"] = "l2"
    scope: Literal["entry", "layer"] = "entry"

    def __post_init__(self) -> None:
        if self.eta < 0.0:
            raise UserError(f"eta must be at least 0, got {self.eta}.")
        if self.ball not in ("l2", "linf"):
            raise UnknownNameError("ball", self.ball, ["l2", "linf"])
        if self.scope not in ("entry", "layer"):
            raise UnknownNameError("scope", self.scope, ["entry", "layer"])

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """``rho T^2 g / |T g|`` or ``rho T sign(g)``."""
        directions: list[Tensor] = []
        norms: list[Tensor] = []
        for weight, grad, is_bias in zip(
            selection.params, selection.grads, selection.is_bias, strict=True
        ):
            scale = torch.ones_like(weight) if is_bias else self._scale(weight)
            if self.ball == "linf":
                directions.append(scale.mul_(grad.sign()))
            else:
                scaled = scale * grad
                norms.append(joint_norm([scaled]))
                directions.append(scale.mul_(scaled))
        factor = 1.0 if self.ball == "linf" else 1.0 / (float(joint_norm(norms)) + 1e-12)
        return selection.times_radius(directions, factor)

    def _scale(self, weight: Tensor) -> Tensor:
        if self.scope == "layer":
            return torch.ones_like(weight).mul_(weight.norm() * (1.0 + self.eta))
        return weight.abs().add_(self.eta)


@register("asam", paper="arXiv:2102.11600", evaluations=2, memory=2, neutral={"rho": 0.0})
def asam(
    params: Params,
    *,
    base: BaseFactory,
    rho: Radius = 0.5,
    eta: float = 0.01,
    ball: Literal["l2", "linf"] = "l2",
    scope: Literal["entry", "layer"] = "entry",
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> SharpnessAware:
    """ASAM with radius ``rho`` and guard ``eta``; see the module for the equations."""
    return SharpnessAware(
        params,
        base=base,
        perturbation=AdaptiveAscent(eta=eta, ball=ball, scope=scope),
        rho=rho,
        every=every,
        only=only,
        **settings,
    )
