"""Whose state a saved one is; checked before anything is changed by it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mbrl_flat.errors import UserError
from mbrl_flat.optim.parameters import PREFIX, ParamGroup, claim_keys

KEYS = frozenset({"base", "perturbation"})
"""What every state has."""
_LATER = frozenset({"generator_device", "restricts"})
"""Entries of ``perturbation`` that states of earlier revisions lack."""


def identity(made_by: Sequence[str], groups: Sequence[ParamGroup]) -> dict[str, Any]:
    """What tells a state from that of something else.

    Args:
        made_by: The method's name, then that of its base.
        groups: All parameter groups of the optimizer.

    Returns:
        Entries to be saved: the names, and the shapes of the parameters group by group.
    """
    shapes = [[list(param.shape) for param in group["params"]] for group in groups]
    return {"made_by": list(made_by), "shapes": shapes}


def check_state(
    state: Mapping[str, Any],
    *,
    made_by: Sequence[str],
    groups: Sequence[ParamGroup],
    entries: Mapping[str, Any],
) -> None:
    """Refuse the state of something else, but for what is within that of the base.

    Args:
        state: What was given.
        made_by: Names of the method and its base.
        groups: All parameter groups of the optimizer.
        entries: What the method itself would save now.
    """
    _check_keys(state)
    _check_identity(state, identity(made_by, groups))
    _check_entries(state["perturbation"], entries, sum(len(group["params"]) for group in groups))


def _check_keys(state: Mapping[str, Any]) -> None:
    """Refuse what is no state of ours."""
    if not isinstance(state, Mapping):
        raise UserError(f"load_state_dict takes what state_dict() gave, got {state!r}.")
    if set(state) not in (KEYS, KEYS | {"made_by", "shapes"}):
        raise UserError(
            "This is not the state of an optimizer of mbrl_flat: it has the keys "
            f"{sorted(map(str, state))}, expected 'base' and 'perturbation'."
        )


def _check_identity(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse the state of another method or of other parameters; old ones do not tell, and pass."""
    if "made_by" not in state:
        return
    names = [" on ".join(of["made_by"]) for of in (own, state)]
    if names[0] != names[1]:
        raise UserError(
            f"This is not the state of {names[0]} but that of {names[1]}; make the optimizer that "
            "saved it, or begin without its state."
        )
    if state["shapes"] != own["shapes"]:
        raise UserError(
            f"This is not the state of {names[0]} for these parameters: it was saved for groups of "
            f"the shapes {state['shapes']}, and they are {own['shapes']}."
        )


def _check_entries(state: Mapping[str, Any], own: Mapping[str, Any], count: int) -> None:
    """Refuse what a method keeps between steps if it is not what this one keeps."""
    missing, unknown = set(own) - _LATER - set(state), set(state) - set(own)
    if missing or unknown:
        raise UserError(
            "This is not the state of this method: it lacks the entries "
            f"{sorted(missing)} and has the unknown ones {sorted(unknown)}."
        )
    for name, value in state.items():
        if isinstance(value, list) and len(value) != count:
            raise UserError(
                f"This is not the state for these parameters: it has {name} of {len(value)}, and "
                f"they are {count}."
            )


def check_groups(state: Mapping[str, Any], groups: Sequence[ParamGroup]) -> None:
    """Refuse the state of a base whose groups are others.

    Args:
        state: What the base's ``state_dict`` gave.
        groups: All parameter groups of the optimizer.

    Raises:
        UserError: If the numbers of parameters differ.
    """
    if not {"state", "param_groups"} <= set(state):
        raise UserError(
            "This is not the state of a base optimizer: it has the keys "
            f"{sorted(map(str, state))}, expected 'state' and 'param_groups'."
        )
    saved = [len(group["params"]) for group in state["param_groups"]]
    sizes = [len(group["params"]) for group in groups]
    if saved != sizes:
        raise UserError(
            f"This is not the state for these parameters: its groups have {saved} parameters, "
            f"and they are {sizes}."
        )


_OLD_KEYS = ("name", "param_kinds")
"""Keys of groups that earlier revisions saved, which the optimizer gives its groups itself."""


def without_own_keys(state: dict[str, Any]) -> dict[str, Any]:
    """A state of torch's without our keys of groups, but for radii that are numbers."""
    for group in state.get("param_groups", []):
        for key in [key for key in group if key.startswith(PREFIX)]:
            if key != "flat_rho" or callable(group[key]):
                del group[key]
    return state


def own_keys(groups: Sequence[ParamGroup]) -> list[ParamGroup]:
    """Our keys of all groups, which a file does not bring."""
    return [{k: v for k, v in group.items() if k.startswith(PREFIX)} for group in groups]


def restore_keys(
    groups: Sequence[ParamGroup], kept: Sequence[ParamGroup], base_keys: Iterable[str]
) -> None:
    """Give groups our keys back after a state was loaded; a radius that was saved counts.

    Args:
        groups: Groups as they were loaded.
        kept: Our keys of each from before.
        base_keys: Keys that are the base's own.
    """
    for group, own in zip(groups, kept, strict=True):
        for key in _OLD_KEYS:
            if key not in base_keys:
                group.pop(key, None)
        claim_keys(group, base_keys)
        saved = group.get("flat_rho")
        group.update(own)
        if saved is not None and not callable(own.get("flat_rho")):
            group["flat_rho"] = saved
