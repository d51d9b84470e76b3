r"""The preconditioned sharpness of Adam, and the value at which Adam becomes unstable.

Adam moves each weight by ``eta_i / P_i`` times a mean of its gradients, with

.. math::
    P = (1 - \beta_1^t) \left(\sqrt{v_t / (1 - \beta_2^t)} + \epsilon\right), \qquad
    D_i = \eta_i / P_i

so what matters is not ``lambda_max(H)`` but that of ``D^{1/2} H D^{1/2}``: it has no unit, learning
rates that differ between groups are in it, and on a quadratic the iteration diverges above

.. math::
    \frac{2 + 2 \beta_1}{1 - \beta_1}, \qquad 38 \text{ for } \beta_1 = 0.9.

RAdam multiplies ``D`` by its rectification. NAdam moves along ``(1 - mu) g + mu m`` instead of the
mean ``m``, which is stable up to ``(2 + 2 beta_1) / (1 + beta_1 - 2 beta_1 mu)`` only: 13.6 for
``beta_1 = mu = 0.9``. (The update matrix of a quadratic has an eigenvalue -1 there.)

References:
    Cohen et al., "Adaptive Gradient Methods at the Edge of Stability", 2022, arXiv:2207.14484.

Deviations from the paper:
    The learning rate is part of the matrix, not of the threshold. IVON, which divides by its own
    estimate of the curvature, has ``D_i = eta (h_0 + delta) / (h_i + delta)``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.diagnostics.lanczos import Product
from mbrl_flat.diagnostics.vectors import flatten

_ADAM_KIND = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam)
"""Optimizers whose steps are those of the equation; others may keep a state of the same name."""


def step_scales(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> Tensor | None:
    """``D`` ``[n]`` of some of the parameters of Adam, AdamW, NAdam, RAdam or IVON.

    Args:
        optimizer: What trains the parameters, or an optimizer around it.
        params: The parameters, in the order of the answer.

    Returns:
        ``eta_i / P_i``; None for optimizers of another kind and before the first step.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    parts: list[Tensor] = []
    for param in params:
        state, group = optimizer.state.get(param, {}), groups.get(id(param))
        if group is None or "betas" not in group:
            return None
        if "hess_init" in group and "hessian" in state:
            parts.append(_ivon_scale(group, state))
        elif isinstance(_innermost(optimizer), _ADAM_KIND) and "exp_avg_sq" in state:
            parts.append(_adam_scale(group, state))
        else:
            return None
    return flatten(parts)


def _innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that makes the step, inside those that wrap it."""
    base = getattr(optimizer, "base", None)
    return _innermost(base) if isinstance(base, torch.optim.Optimizer) else optimizer


def _adam_scale(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    beta1, beta2 = group["betas"]
    step = float(state["step"])
    second, mean = state.get("max_exp_avg_sq", state["exp_avg_sq"]).detach(), 1.0 - beta1**step
    if "amsgrad" not in group and "momentum_decay" not in group:
        rectification = _rectification(beta2, step)
        if rectification is None:
            return torch.full_like(second, float(group["lr"]) / mean)
        root = (second.sqrt() + group["eps"]) / (1.0 - beta2**step) ** 0.5
        return group["lr"] * rectification / (mean * root)
    root = (second / (1.0 - beta2**step)).sqrt() + group["eps"]
    if "momentum_decay" in group:
        mean = 1.0 - float(state["mu_product"])
    return group["lr"] / (mean * root)


def _rectification(beta2: float, step: float) -> float | None:
    """RAdam's ``r_t``; None in the first steps, which do not divide by the second moment."""
    limit = 2.0 / (1.0 - beta2) - 1.0
    rho = limit - 2.0 * step * beta2**step / (1.0 - beta2**step)
    if rho <= 5.0:
        return None
    return ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5


def _ivon_scale(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    delta = group["weight_decay"]
    return group["lr"] * (group["hess_init"] + delta) / (state["hessian"].detach() + delta)


def threshold(optimizer: torch.optim.Optimizer) -> float:
    """``(2 + 2 beta1) / (1 + beta1 - 2 beta1 mu)`` of the first group, ``mu = 1`` but for NAdam."""
    group = optimizer.param_groups[0]
    beta1, mu = float(group["betas"][0]), 1.0
    if "momentum_decay" in group:
        step = float(optimizer.state[group["params"][0]]["step"])
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))
    return (2.0 + 2.0 * beta1) / (1.0 + beta1 - 2.0 * beta1 * mu)


def preconditioned(product: Product, scales: Tensor) -> Product:
    """Products with ``D^{1/2} A D^{1/2}`` for a matrix ``A`` and scales ``D`` ``[n]``."""
    root = scales.sqrt()
    return lambda vector: root * product(root * vector)
