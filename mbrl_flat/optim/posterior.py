"""A Gaussian over the weights with a learned diagonal precision; what IVON and bSAM share."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mbrl_flat.optim.noise import Precision, fill_normal
from mbrl_flat.optim.parameters import ParamGroup
from mbrl_flat.optim.parameterwise import ParameterwiseUpdate


class Posterior(ParameterwiseUpdate):
    """Momentum and curvature of every parameter; a subclass says how they move.

    The precision is ``count * (curvature + damping)``; ``count_key`` and
    ``damping_key`` name the two numbers in the groups.

    Args:
        groups: Parameter groups as torch takes them, each with ``params``.
        defaults: Settings of the groups.

    Attributes:
        statistic: What the evaluations of a step leave for each parameter beside the gradient.
    """

    count_key = ""
    damping_key = ""
    start_key = ""
    curvature_key = ""

    def __init__(self, groups: list[ParamGroup], defaults: dict[str, Any]) -> None:
        super().__init__(groups, defaults)
        self.statistic: dict[nn.Parameter, Tensor] = {}

    def curvature(self, param: nn.Parameter, group: Mapping[str, Any]) -> Tensor:
        """Curvature of every entry."""
        return self._state(param, group)[self.curvature_key]

    def _state(self, param: nn.Parameter, group: Mapping[str, Any]) -> dict[str, Any]:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"] = torch.zeros_like(param)
            state[self.curvature_key] = torch.full_like(param, group[self.start_key])
        return state

    def sample_(
        self,
        noise: Tensor,
        param: nn.Parameter,
        group: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Tensor:
        """Fill ``noise`` with a draw of the posterior, less its mean."""
        damping = group[self.damping_key] if self.damping_key else 0.0
        scale = group[self.count_key] ** -0.5
        precision = Precision(self.curvature(param, group), damping)
        return fill_normal(noise, generator, scale=scale, precision=precision)

    def _is_ready(self, param: nn.Parameter) -> bool:
        return param in self.statistic
