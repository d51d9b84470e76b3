r"""LaProp with adaptive gradient clipping: normalise first, average after; DreamerV3's optimizer.

.. math::
    u &= g \min\left(1, \; \kappa \max(p_{min}, \|w\|_2) / \|g\|_2\right)
        \quad \text{(each tensor by itself)}, \\
    s &\leftarrow \beta_2 s + (1 - \beta_2) u^2, \qquad
    m \leftarrow \beta_1 m + (1 - \beta_1) \frac{u}{\sqrt{s / (1 - \beta_2^t)} + \varepsilon}, \\
    w &\leftarrow (1 - \eta \delta) w - \eta \, m / (1 - \beta_1^t)

Adam divides the average by the spread, which lets an old large gradient dominate a new small
spread; here every gradient is divided by the spread of its own time. So epsilon may be tiny.
``clip=null`` is LaProp without the clipping. It takes the final gradient: behind SAM and its kind,
clipping sees the gradient of the perturbed weights, and the radius is SAM's own.

How to choose the rate:
    4e-5 for all of DreamerV3. A warm-up of 1000 steps belongs to it.

References:
    Ziyin, Wang & Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", arXiv:2002.04839;
    the clipping is that of Brock et al., "High-Performance Large-Scale Image Recognition Without
    Normalization", ICML 2021, arXiv:2102.06171. As in Hafner et al., "Mastering Diverse Domains
    through World Models", arXiv:2301.04104, and its code: lr 4e-5, betas 0.9 and 0.999, epsilon
    1e-20, clip 0.3 and p_min 1e-3, no weight decay.

Deviations from the paper:
    The first average is weighed without the learning rate, which is applied at the step, as in
    DreamerV3's code. Norms are those of whole tensors, as there; Brock et al. take those of single
    units. DreamerV3 warms the rate up over its first 1000 steps: attach a scheduler.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mbrl_flat.optim.base_optimizers import register_base
from mbrl_flat.optim.methods.plain import TorchOptimizer
from mbrl_flat.optim.parameters import Params
from mbrl_flat.optim.parameterwise import ParameterwiseUpdate
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import check_settings, setting
from mbrl_flat.optim.signature import names_arguments


@register_base("laprop")
@names_arguments
class LaProp(ParameterwiseUpdate):
    """The equations of the module; its average of normalised gradients is ``exp_avg``.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate eta, at least 0.
        betas: Decay of the average and of the squares, each in [0, 1).
        eps: Guard of the division.
        weight_decay: Decay delta of the weights, apart from the gradient.
        clip: Bound kappa on the norm of a tensor's gradient, relative to that of its weights;
            null for none.
        min_norm: Weights count as at least this long (p_min).

    Raises:
        UserError: If a setting is out of its range.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 4e-5,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        weight_decay: float = 0.0,
        clip: float | None = 0.3,
        min_norm: float = 1e-3,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "clip": clip,
            "min_norm": min_norm,
        }
        check_settings(LaPropOptimizer, defaults, where="laprop")
        super().__init__(params, defaults)

    def _move(self, param: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        if group["clip"] is not None:
            grad = grad * clip_factor(param, grad, group["clip"], group["min_norm"])
        squares = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        spread = squares.div(1.0 - beta2**step).sqrt_().add_(group["eps"])
        average = state["exp_avg"].mul_(beta1).addcdiv_(grad, spread, value=1.0 - beta1)
        if group["weight_decay"]:
            param.mul_(1.0 - group["lr"] * group["weight_decay"])
        param.add_(average, alpha=-group["lr"] / (1.0 - beta1**step))


def clip_factor(weight: Tensor, grad: Tensor, clip: float, min_norm: float) -> Tensor:
    """Factor that bounds the gradient of one tensor by ``clip`` times the norm of its weights.

    Args:
        weight: The tensor, any shape.
        grad: Its gradient.
        clip: Largest ratio of the norms.
        min_norm: Least norm that the weights count with, so that zero weights can move.

    Returns:
        A scalar in (0, 1]; 1 where the gradient is short enough or zero.
    """
    bound = clip * weight.norm().clamp(min=min_norm)
    return 1.0 / (grad.norm() / bound).clamp(min=1.0)


@register("laprop", paper="arXiv:2002.04839", evaluations=1, memory=0)
class LaPropOptimizer(TorchOptimizer):
    """LaProp behind the common driver.

    Attributes:
        clip: Bound on the norm of a tensor's gradient, relative to that of its weights; null for
            none.
        min_norm: Weights count as at least this long.
    """

    lr: float = setting(4e-5, "[0, inf)")
    betas: tuple[float, float] = setting((0.9, 0.999), "[0, 1)")
    eps: float = setting(1e-20, "[0, inf)")
    weight_decay: float = setting(0.0, "[0, inf)")
    clip: float | None = setting(0.3, "(0, inf)")
    min_norm: float = setting(1e-3, "(0, inf)")

    kind = staticmethod(LaProp)
