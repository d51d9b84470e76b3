r"""ASAM: SAM with a radius for each weight in proportion to its magnitude.

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

from typing import Literal

import torch
from torch import Tensor

from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import Perturbation, SelectedParams, SharpnessAware


def adaptive_ascent(
    selection: SelectedParams, *, eta: float, ball: str = "l2", scope: str = "entry"
) -> Perturbation:
    """``rho T^2 g / |T g|`` or ``rho T sign(g)``."""
    directions: list[Tensor] = []
    norms: list[Tensor] = []
    entries = zip(selection.params, selection.grads, selection.is_bias, strict=True)
    for weight, grad, is_bias in entries:
        if is_bias:
            scale = torch.ones_like(weight)
        elif scope == "layer":
            scale = torch.ones_like(weight).mul_(weight.norm() * (1.0 + eta))
        else:
            scale = weight.abs().add_(eta)
        if ball == "linf":
            directions.append(scale.mul_(grad.sign()))
        else:
            scaled = scale * grad
            norms.append(joint_norm([scaled]))
            directions.append(scale.mul_(scaled))
    factor = 1.0 if ball == "linf" else 1.0 / (float(joint_norm(norms)) + 1e-12)
    return selection.times_radius(directions, factor)


@register("asam", paper="arXiv:2102.11600", evaluations=2, memory=2, neutral={"rho": 0.0})
class ASAM(SharpnessAware):
    """ASAM.

    Attributes:
        eta: Added to the size of every weight, so that zeros move too.
        ball: Shape of the ball, ``l2`` or ``linf``.
        scope: Scale every ``entry`` by itself, or all of a tensor by its norm (``layer``).
    """

    rho: Radius = 0.5
    eta: float = setting(0.01, "[0, inf)")
    ball: Literal["l2", "linf"] = "l2"
    scope: Literal["entry", "layer"] = "entry"

    def perturbation(self, selection: SelectedParams) -> Perturbation:
        """``rho T^2 g / |T g|`` or ``rho T sign(g)``."""
        return adaptive_ascent(selection, eta=self.eta, ball=self.ball, scope=self.scope)
