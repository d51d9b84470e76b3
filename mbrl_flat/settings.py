"""Settings: fields of a dataclass that know which values they take.

A number declares its interval, a choice its names:

    batch_size: int = setting(16, "[1, inf)")
    form: Literal["sample", "mode"] = "sample"

``CheckedSettings`` checks all of them when the object is built.
"""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from numbers import Integral, Real
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

from torch import Tensor

from mbrl_flat.errors import UnknownNameError, UserError


def setting(default: Any = MISSING, allowed: str = "(-inf, inf)") -> Any:
    """Declare a numeric setting.

    Args:
        default: Its default value; without one it has to be given.
        allowed: The interval of its values, such as ``[0, 1)``. ``inf]`` admits infinity.

    Returns:
        A dataclass field.
    """
    return field(default=default, metadata={"allowed": allowed})


class CheckedSettings:
    """A dataclass whose settings are checked when it is built."""

    def __post_init__(self) -> None:
        check_settings(self)


def check_settings(owner: Any, values: Mapping[str, Any] | None = None, *, where: str = "") -> None:
    """Check settings of a dataclass against its annotations and intervals.

    Args:
        owner: The dataclass, a class or an instance.
        values: Values by name; those of the instance if none are given.
        where: What the settings are of, for the error message.

    Raises:
        UserError: If a value is of the wrong kind, out of its interval, or none of the choices.
    """
    for item in fields(owner):
        if values is None:
            check_setting(item, getattr(owner, item.name), where=where)
        elif item.name in values:
            check_setting(item, values[item.name], where=where)


def check_setting(item: Field[Any], value: Any, *, where: str = "") -> None:
    """Check one value; see ``check_settings``."""
    kinds = kinds_of(item.type)
    if value is None and types.NoneType in kinds:
        return
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices and value not in choices:
        raise UnknownNameError(item.name, value, choices, where=where)
    allowed = item.metadata.get("allowed", "(-inf, inf)")
    if get_origin(item.type) is tuple and (not _is_list(value) or len(value) != 2):
        raise UserError(f"{item.name} must be two numbers, got {value!r}.")
    if item.type is bool and not isinstance(value, bool):
        raise UserError(f"{item.name} must be true or false, got {value!r}.")
    _check_numbers(item.name, value, item.type, allowed)


def _check_numbers(name: str, value: Any, annotation: Any, allowed: str) -> None:
    """Check a number, or those in lists and mappings, where the annotation says that it is one."""
    kinds, inner = kinds_of(annotation), get_args(annotation)
    if float in kinds or int in kinds:
        if value is not None or types.NoneType not in kinds:
            check_number(name, value, allowed, whole=float not in kinds)
    elif get_origin(annotation) is Mapping and isinstance(value, Mapping):
        for key, one in value.items():
            _check_numbers(f"{name}.{key}", one, inner[1], allowed)
    elif get_origin(annotation) in (Sequence, tuple) and _is_list(value):
        for one in value:
            _check_numbers(name, one, inner[0], allowed)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; any other annotation alone."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)


def check_number(name: str, value: Any, allowed: str, *, whole: bool = False) -> None:
    """Check a number against an interval.

    Args:
        name: What it is, for the error message.
        value: What the user gave; numbers and scalar tensors are accepted.
        allowed: The interval, such as ``[0, 1)``. ``inf]`` admits infinity.
        whole: Whether fractions such as 1.5 are refused.

    Raises:
        UserError: If it is no number, or beyond the interval.
    """
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real | Tensor):
        raise UserError(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}.")
    low, high = map(float, allowed[1:-1].split(","))
    number: Any = value  # Python does not say that numbers can be compared.
    above = number >= low if allowed[0] == "[" else number > low
    below = number <= high if allowed[-1] == "]" else number < high
    if not (above and below):
        raise UserError(f"{name} must {_in_words(allowed, low, high)}, got {value}.")


def _in_words(allowed: str, low: float, high: float) -> str:
    if math.isfinite(high):
        return f"lie in {allowed}"
    if math.isfinite(low):
        return f"be at least {low:g}" if allowed[0] == "[" else f"be above {low:g}"
    return "be finite"
