"""Adam, AdamW and SGD of torch, as baselines: one gradient evaluation, no perturbation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mbrl_flat.optim.base import FlatOptimizer
from mbrl_flat.optim.base_optimizers import built
from mbrl_flat.optim.parameters import ParamGroup
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting


class TorchOptimizer(FlatOptimizer):
    """An optimizer of torch behind the common driver; its settings are those of the class.

    Attributes:
        lr: Learning rate, at least 0.
        betas: Decay of the averages of gradients and of their squares, each in [0, 1).
        eps: Added to the root of the average of squares before the division.
        weight_decay: Coefficient of the weights in the decay, at least 0; 0 for none.
        momentum: Decay of the average of gradients, in [0, 1); 0 for none.
        nesterov: Nesterov's momentum, which needs ``momentum`` above 0.
        fused: Use torch's fused kernel where there is one.
    """

    kind: Callable[..., torch.optim.Optimizer] = staticmethod(torch.optim.SGD)

    def _make_base(self, groups: list[ParamGroup], *base: Any) -> torch.optim.Optimizer:
        del base
        settings = self.own_settings()
        pairs = {name: tuple(v) for name, v in settings.items() if isinstance(v, list | tuple)}
        return built(partial(self.kind, **settings | pairs), groups)


@register("adam", paper="arXiv:1412.6980", evaluations=1, memory=0)
class Adam(TorchOptimizer):
    """Adam (Kingma & Ba, arXiv:1412.6980) as torch has it; decay is added to the gradient."""

    lr: float = setting(1e-3, "[0, inf)")
    betas: tuple[float, float] = setting((0.9, 0.999), "[0, 1)")
    eps: float = setting(1e-8, "[0, inf)")
    weight_decay: float = setting(0.0, "[0, inf)")
    fused: bool = True

    kind = staticmethod(torch.optim.Adam)


@register("adamw", paper="arXiv:1711.05101", evaluations=1, memory=0)
class AdamW(TorchOptimizer):
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101): Adam, with decay apart from the gradient."""

    lr: float = setting(1e-3, "[0, inf)")
    betas: tuple[float, float] = setting((0.9, 0.999), "[0, 1)")
    eps: float = setting(1e-8, "[0, inf)")
    weight_decay: float = setting(1e-2, "[0, inf)")
    fused: bool = True

    kind = staticmethod(torch.optim.AdamW)


@register("sgd", evaluations=1, memory=0)
class SGD(TorchOptimizer):
    """Stochastic gradient descent, with momentum if wanted."""

    lr: float = setting(1e-2, "[0, inf)")
    momentum: float = setting(0.0, "[0, 1)")
    weight_decay: float = setting(0.0, "[0, inf)")
    nesterov: bool = False
    fused: bool = True

    kind = staticmethod(torch.optim.SGD)
