"""Adam, AdamW and SGD behind the common driver: one evaluation, no perturbation."""

from functools import partial
from typing import Unpack

import torch

from mbrl_flat.optim.base import FlatOptimizer, Params, StepOptions
from mbrl_flat.optim.registry import register


@register("adam", paper="arXiv:1412.6980", evaluations=1, memory=0)
def adam(
    params: Params,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    fused: bool = True,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """Adam (Kingma & Ba, 2015) as torch computes it; ``weight_decay`` is added to the gradient."""
    base = partial(
        torch.optim.Adam,
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        weight_decay=weight_decay,
        fused=fused,
    )
    return FlatOptimizer(params, base=base, **settings)


@register("adamw", paper="arXiv:1711.05101", evaluations=1, memory=0)
def adamw(
    params: Params,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    fused: bool = True,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """AdamW (Loshchilov & Hutter, 2019): Adam with the weights decayed apart from the gradient."""
    base = partial(
        torch.optim.AdamW,
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        weight_decay=weight_decay,
        fused=fused,
    )
    return FlatOptimizer(params, base=base, **settings)


@register("sgd", paper="", evaluations=1, memory=0)
def sgd(
    params: Params,
    *,
    lr: float = 1e-2,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    fused: bool = True,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """Stochastic gradient descent, with momentum if wanted."""
    base = partial(
        torch.optim.SGD,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov,
        fused=fused,
    )
    return FlatOptimizer(params, base=base, **settings)
