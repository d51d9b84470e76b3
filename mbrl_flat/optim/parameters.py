"""What an optimizer is given: parameters, named parameters, groups of them, or a module."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mbrl_flat.errors import UserError

ParamGroup = dict[str, Any]
"""As in torch. Keys that begin with ``flat_`` are ours, so no base optimizer reads them."""

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[ParamGroup]

PREFIX = "flat_"
PLAIN_KEYS = ("rho", "lr_scale", "name")
"""Keys that a caller may write without the prefix, where the base has no key of that name."""

_WANTED = (
    "The optimizer was given {}; give the model, its parameters, named parameters or a list of "
    "groups with the key 'params'."
)


def as_groups(params: Params) -> list[ParamGroup]:
    """Groups that belong to us, so that the caller's dictionaries stay as they are.

    Args:
        params: What the caller gave.

    Returns:
        New groups of the same parameters.

    Raises:
        UserError: If there are none, complex ones, or something else.
    """
    if not isinstance(params, Iterable) or isinstance(params, Tensor | str | Mapping):
        raise UserError(_WANTED.format(type(params).__name__))
    entries: list[Any] = list(params)
    if not entries:
        raise UserError("The optimizer was given no parameters; check that the model has any.")
    groups = [{"params": entries}]
    if isinstance(entries[0], dict):
        groups = [{**entry, "params": _listed(entry)} for entry in entries]
    for group in groups:
        check_params(group)
    return groups


def check_params(group: Mapping[str, Any]) -> None:
    """Refuse what is no parameter, and complex ones: their perturbations are not defined here."""
    for entry in group["params"]:
        param = entry[1] if isinstance(entry, tuple) else entry
        if not isinstance(param, Tensor):
            raise UserError(_WANTED.format(f"{type(param).__name__} among its parameters"))
        if param.is_complex():
            raise UserError(
                f"The optimizer was given a complex parameter of shape {tuple(param.shape)}, and "
                "takes real ones only; store it as torch.view_as_real(...) and view it as complex "
                "in the forward pass."
            )


def _listed(group: Mapping[str, Any]) -> list[Any]:
    """Parameters of a group, of which torch lets one stand alone."""
    if "params" not in group:
        raise UserError(f"A parameter group needs the key 'params', got {sorted(group)}.")
    params = group["params"]
    return [params] if isinstance(params, Tensor) else list(params)


def keys_of(groups: Sequence[ParamGroup]) -> set[str]:
    """Names of all entries that any of the groups has."""
    return {key for group in groups for key in group}


def claim_keys(group: ParamGroup, base_keys: Iterable[str]) -> None:
    """Give our keys of a group their prefix, but for names that are the base's own."""
    for key in set(PLAIN_KEYS) - set(base_keys):
        if key in group:
            group[PREFIX + key] = group.pop(key)


def scale_lr(group: ParamGroup) -> None:
    """Apply a group's ``flat_lr_scale`` once."""
    if "flat_lr_scale" in group:
        group["lr"] = group["lr"] * group.pop("flat_lr_scale")


def all_params(groups: Sequence[ParamGroup]) -> list[nn.Parameter]:
    """Parameters of all groups, in order."""
    return [param for group in groups for param in group["params"]]
