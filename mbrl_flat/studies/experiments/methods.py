"""Optimizers by the names that studies give them: the registry's, variants, and controls."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UnknownNameError
from mbrl_flat.optim import (
    OPTIMIZERS,
    FlatOptimizer,
    MomentumSAM,
    PlainOptimizer,
    make_optimizer,
    module_groups,
)
from mbrl_flat.optim.base_optimizers import BaseFactory
from mbrl_flat.optim.groups import selected
from mbrl_flat.optim.sharpness_aware import Perturbation, RuleSAM, SelectedParams

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vasso_0.2": ("vasso", {"theta": 0.2}),
    "vasso_0.9": ("vasso", {"theta": 0.9}),
    "no_norm": ("sam", {"only": ["weight", "bias"]}),
}
"""Methods of the registry with settings, under a name of their own.

``no_norm`` is the complement of SAM-ON: it perturbs everything but normalisation layers.
"""


class FlippedMSAM(MomentumSAM):
    """The control for the sign of MSAM: perturbed along the momentum instead of against it."""

    def _perturbed(
        self, params: list[Tensor], perturbation: Perturbation
    ) -> AbstractContextManager[None]:
        return super()._perturbed(params, -perturbation)


class MaskedAscent:
    """The control for SAM-ON: SAM on a random set of as many entries, drawn once.

    Args:
        share: Share of the entries of every tensor that are perturbed.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """``rho M g / |M g|`` with the mask M."""
        for own, grad in zip(selection.method_state, selection.grads, strict=True):
            if "mask" not in own:
                draw = torch.rand(grad.shape, generator=selection.generator, device=grad.device)
                own["mask"] = (draw < self.share).to(grad)
        masked = [
            g * m["mask"] for g, m in zip(selection.grads, selection.method_state, strict=True)
        ]
        return selection.along(masked)


def _flipped(model: nn.Module, base: BaseFactory, rho: float) -> FlatOptimizer:
    return FlippedMSAM(module_groups({"": model}), base=base, rho=rho)


def _masked(model: nn.Module, base: BaseFactory, rho: float) -> FlatOptimizer:
    groups = module_groups({"": model})
    norm = sum(p.numel() for p in selected(groups, ["norm"]))
    share = norm / sum(p.numel() for p in model.parameters())
    return RuleSAM(groups, base=base, rule=MaskedAscent(share), rho=rho)


CONTROLS: dict[str, Callable[[nn.Module, BaseFactory, float], FlatOptimizer]] = {
    "msam_flipped": _flipped,
    "random_mask": _masked,
}
"""Methods that exist for comparison alone and are in no registry."""


def check_method(method: str) -> None:
    """Refuse what ``method_optimizer`` does not know.

    Raises:
        UnknownNameError: If there is no such method.
    """
    known = {"base", *CONTROLS, *VARIANTS, *OPTIMIZERS}
    if method not in known:
        raise UnknownNameError("method", method, known)


def method_optimizer(
    method: str, model: nn.Module, *, base: BaseFactory, rho: float
) -> FlatOptimizer:
    """Make a method's optimizer for all weights of a model.

    Args:
        method: A key of ``VARIANTS`` or ``CONTROLS``, ``base`` for the base alone, or a name in
            the registry.
        model: The network whose weights the optimizer moves.
        base: Makes the optimizer that takes the final gradient.
        rho: Radius; 0 for a method that has none.

    Returns:
        The optimizer.
    """
    if method == "base":
        return PlainOptimizer(module_groups({"": model}), base=base)
    if method in CONTROLS:
        return CONTROLS[method](model, base, rho)
    name, settings = VARIANTS.get(method, (method, {}))
    return make_optimizer(name, model, base=base, rho=rho, **settings)
