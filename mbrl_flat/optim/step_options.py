"""Settings of the driver, which every optimizer of the registry takes."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from mbrl_flat.errors import UnknownNameError, UserError


class StepOptions(TypedDict, total=False):
    """Settings that every optimizer of the registry takes.

    ``max_grad_norm``: bound on the joint norm of the final gradient. ``on_nonfinite``: ``raise``,
    or ``skip`` the step and count it. ``same_rng``: every evaluation of one step draws the same
    random numbers. ``frozen_batchnorm``: only the first evaluation moves running statistics.
    ``micro_batches``: given several closures, ``replay`` all of them at one common perturbation,
    or give ``each`` its own (m-sharpness). ``sync``: in a data-parallel run whose model is not
    wrapped, average every gradient (``global``: one perturbation) or only the final one
    (``local``: each process has its own); ``none`` leaves it to the caller. ``compiled``: closures
    run compiled code, so the same parameters take a gradient in every step: code is compiled anew
    for others.
    """

    max_grad_norm: float | None
    on_nonfinite: Literal["raise", "skip"]
    same_rng: bool
    frozen_batchnorm: bool
    micro_batches: Literal["replay", "each"]
    sync: Literal["none", "local", "global"]
    compiled: bool


_CHOICES = {
    "on_nonfinite": ["raise", "skip"],
    "micro_batches": ["replay", "each"],
    "sync": ["none", "local", "global"],
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values that mean nothing.

    Args:
        settings: Some of ``StepOptions``.

    Raises:
        UserError: If the bound is not positive.
        UnknownNameError: If a choice is none of those there are.
    """
    for name, allowed in _CHOICES.items():
        if name in settings and settings[name] not in allowed:
            raise UnknownNameError(name, settings[name], allowed)
    bound = settings.get("max_grad_norm")
    if bound is not None and not bound > 0.0:
        raise UserError(f"max_grad_norm must be positive or null, got {bound}.")
