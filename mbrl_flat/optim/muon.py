"""Muon for matrices and AdamW for the rest, as one base optimizer."""

from typing import Any

import torch
from torch import Tensor

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base_optimizers import register_base
from mbrl_flat.optim.parameters import ParamGroup, as_groups
from mbrl_flat.optim.signature import names_arguments

_LISTS = ("param_names", "flat_kinds", "flat_owners")


@register_base("muon")
@names_arguments
class MuonWithAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` on parameters of two dimensions, ``torch.optim.AdamW`` on the others.

    Muon's steps are scaled to the root mean square of AdamW's, so one learning rate serves both.

    Args:
        params: Parameters or groups.
        lr: Learning rate, at least 0.
        weight_decay: Decay of the weights, apart from the gradient.
        momentum: Decay of Muon's momentum.
        betas: Decay of AdamW's moments.

    Raises:
        UserError: If a setting is out of its range.

    References:
        Jordan et al., "Muon: An Optimizer for Hidden Layers in Neural Networks", 2024; the scale is
        that of Liu et al., "Muon is Scalable for LLM Training", arXiv:2502.16982.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        if not (lr >= 0.0 and weight_decay >= 0.0 and 0.0 <= momentum < 1.0):
            raise UserError(
                f"muon needs lr and weight_decay of at least 0 and momentum in [0, 1), got {lr}, "
                f"{weight_decay} and {momentum}."
            )
        halves = [half for group in as_groups(params) for half in _halves(group)]
        defaults = {"lr": lr, "weight_decay": weight_decay}
        super().__init__(halves, defaults)
        # Each of the two owns the dictionaries of its groups, and so the rates of schedulers.
        self._matrices = self._inner(
            torch.optim.Muon, True, momentum=momentum, adjust_lr_fn="match_rms_adamw"
        )
        self._rest = self._inner(torch.optim.AdamW, False, betas=(betas[0], betas[1]))

    def _inner(self, kind: Any, of_matrices: bool, **settings: Any) -> torch.optim.Optimizer | None:
        groups = [g for g in self.param_groups if g["flat_matrices"] is of_matrices]
        if not groups:
            return None
        made = kind(groups, lr=self.defaults["lr"], **settings)
        for group, full in zip(groups, made.param_groups, strict=True):
            for key, value in full.items():
                group.setdefault(key, value)
        return made

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only three attributes in copies and pickles, and not a scheduler's step.
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every parameter that has a gradient."""
        del closure
        for inner, of_matrices in ((self._matrices, True), (self._rest, False)):
            if inner is not None:
                inner.param_groups = [
                    g for g in self.param_groups if g["flat_matrices"] is of_matrices
                ]
                inner.state = self.state
                inner.step()


def _halves(group: ParamGroup) -> list[ParamGroup]:
    """The matrices of a group and its other parameters, as groups of their own."""
    params = list(group["params"])
    tensors: list[Tensor] = [p[1] if isinstance(p, tuple) else p for p in params]
    made: list[ParamGroup] = []
    for of_matrices in (True, False):
        chosen = [i for i, tensor in enumerate(tensors) if (tensor.ndim == 2) is of_matrices]
        if chosen:
            lists = {key: [group[key][i] for i in chosen] for key in _LISTS if key in group}
            part = {"params": [params[i] for i in chosen], "flat_matrices": of_matrices}
            made.append({**group, **lists, **part})
    return made
