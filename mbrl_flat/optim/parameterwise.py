"""Updates that move every parameter by itself; what LaProp, SASSHA, IVON and bSAM share."""

from typing import Any

import torch
from torch import Tensor, nn


class ParameterwiseUpdate(torch.optim.Optimizer):
    """A subclass says in ``_move`` how one parameter moves."""

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only three attributes in copies and pickles, and not a scheduler's step.
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every parameter that has a gradient, and what ``_is_ready`` asks for."""
        del closure
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None and self._is_ready(param):
                    self._move(param, param.grad, group)

    def _is_ready(self, param: nn.Parameter) -> bool:
        del param
        return True

    def _move(self, param: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError
