r"""The sharpness that Adam feels, and the value at which it becomes unstable.

Adam moves each weight by ``eta_i / P_i`` times a mean of its gradients, with

.. math::
    P = (1 - \beta_1^t) \left(\sqrt{v_t / (1 - \beta_2^t)} + \epsilon\right), \qquad
    D_i = \eta_i / P_i

so what matters is not ``lambda_max(H)`` but that of ``D^{1/2} H D^{1/2}``: it has no unit, learning
rates that differ between groups are in it, and on a quadratic the iteration diverges above

.. math::
    \frac{2 + 2 \beta_1}{1 - \beta_1}, \qquad 38 \text{ for } \beta_1 = 0.9.

References:
    Cohen et al., "Adaptive Gradient Methods at the Edge of Stability", 2022, arXiv:2207.14484.

Deviations from the paper:
    The learning rate is part of the matrix, not of the threshold. IVON, which divides by its own
    estimate of the curvature, is judged alike, ``D_i = eta (h_0 + delta) / (h_i + delta)``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.diagnostics.lanczos import Product
from mbrl_flat.diagnostics.vectors import flatten


def step_scales(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> Tensor | None:
    """``D`` ``[n]`` of some of the parameters of an optimizer of Adam's kind, or of IVON.

    Args:
        optimizer: Whose state has ``exp_avg_sq`` and ``step``, or ``hessian``, for every parameter.
        params: Which.

    Returns:
        ``eta_i / P_i``; None if the optimizer is of another kind or has not made a step.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parts: list[Tensor] = []
    for param in params:
        state = optimizer.state.get(param, {})
        group = groups.get(id(param))
        if group is None or "betas" not in group:
            return None
        if "exp_avg_sq" in state:
            parts.append(_adam_scale(group, state))
        elif "hess_init" in group and "hessian" in state:
            parts.append(_ivon_scale(group, state))
        else:
            return None
    return flatten(parts)


def _adam_scale(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    beta1, beta2 = group["betas"]
    step = float(state["step"])
    root = (state["exp_avg_sq"].detach() / (1.0 - beta2**step)).sqrt()
    return group["lr"] / ((1.0 - beta1**step) * (root + group["eps"]))


def _ivon_scale(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    delta = group["weight_decay"]
    return group["lr"] * (group["hess_init"] + delta) / (state["hessian"].detach() + delta)


def threshold(optimizer: torch.optim.Optimizer) -> float:
    """``(2 + 2 beta1) / (1 - beta1)`` of the first group."""
    beta1 = float(optimizer.param_groups[0]["betas"][0])
    return (2.0 + 2.0 * beta1) / (1.0 - beta1)


def preconditioned(product: Product, scales: Tensor) -> Product:
    """Products with ``D^{1/2} A D^{1/2}`` for a matrix ``A`` and scales ``D`` ``[n]``."""
    root = scales.sqrt()
    return lambda vector: root * product(root * vector)
