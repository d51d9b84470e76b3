"""What an optimizer is given: parameters, named parameters or groups of them."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from mbrl_flat.errors import UserError

ParamGroup = dict[str, Any]
"""As in torch; ``name``, ``param_names``, ``param_kinds``, ``lr_scale`` and ``rho`` are ours."""

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[ParamGroup]


def as_groups(params: Params) -> list[ParamGroup]:
    """Groups that belong to us, so that the caller's dictionaries stay as they are.

    Args:
        params: What the caller gave.

    Returns:
        New groups of the same parameters.

    Raises:
        UserError: If there are none.
    """
    entries: list[Any] = list(params)
    if not entries:
        raise UserError("The optimizer was given no parameters; check that the model has any.")
    if isinstance(entries[0], dict):
        return [{**entry, "params": _listed(entry["params"])} for entry in entries]
    return [{"params": entries}]


def _listed(params: Any) -> list[Any]:
    """Parameters of a group, of which torch lets one stand alone."""
    return [params] if isinstance(params, Tensor) else list(params)


def scale_lr(group: ParamGroup) -> None:
    """Apply a group's ``lr_scale`` once."""
    if "lr_scale" in group:
        group["lr"] = group["lr"] * group.pop("lr_scale")
