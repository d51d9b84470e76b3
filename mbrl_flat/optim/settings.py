"""Settings of an optimizer: dataclass fields that know which values they take."""

import math
import types
from collections.abc import Mapping
from dataclasses import Field, field, fields
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

from torch import Tensor

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.schedules import Schedule, check_radius


def setting(default: Any, allowed: str) -> Any:
    """Declare a numeric setting.

    Args:
        default: Its default value.
        allowed: The interval of its values, such as ``[0, 1)``. ``inf]`` admits infinity.

    Returns:
        A dataclass field.
    """
    return field(default=default, metadata={"allowed": allowed})


def check_settings(owner: Any, values: Mapping[str, Any] | None = None, *, where: str = "") -> None:
    """Check settings of a dataclass against its annotations and intervals.

    Args:
        owner: The dataclass, a class or an instance.
        values: Values by name; those of the instance if none are given.
        where: Name of the optimizer, for the error message.

    Raises:
        UserError: If a value is of the wrong kind, out of its interval, or none of the choices.
    """
    for item in fields(owner):
        if values is None:
            _check(item, getattr(owner, item.name), where)
        elif item.name in values:
            _check(item, values[item.name], where)


def _check(item: Field[Any], value: Any, where: str) -> None:
    kinds = _kinds(item.type)
    if value is None and types.NoneType in kinds:
        return
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices and value not in choices:
        raise UnknownNameError(item.name, str(value), choices, where=where)
    if Schedule in kinds:
        check_radius(value, name=item.name)
    elif get_origin(item.type) is tuple:
        _check_pair(item, value)
    elif float in kinds or int in kinds:
        _check_number(item, value, whole=float not in kinds)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)


def _check_pair(item: Field[Any], value: Any) -> None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UserError(f"{item.name} must be two numbers, got {value!r}.")
    for number in value:
        _check_number(item, number, whole=False)


def _check_number(item: Field[Any], value: Any, *, whole: bool) -> None:
    allowed = item.metadata.get("allowed", "(-inf, inf)")
    is_number = isinstance(value, Real | Tensor) and not isinstance(value, bool)
    if is_number and whole and not isinstance(value, Integral):
        is_number = False
    if not is_number or not _is_within(float(value), allowed):
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{item.name} must be {kind} {_in_words(allowed)}, got {value!r}.")


def _bounds(allowed: str) -> tuple[float, float]:
    low, high = allowed[1:-1].split(",")
    return float(low), float(high)


def _is_within(value: float, allowed: str) -> bool:
    low, high = _bounds(allowed)
    above = value >= low if allowed[0] == "[" else value > low
    below = value <= high if allowed[-1] == "]" else value < high
    return above and below


def _in_words(allowed: str) -> str:
    low, high = _bounds(allowed)
    if math.isfinite(high):
        return f"in {allowed}"
    if math.isfinite(low):
        return f"of at least {low:g}" if allowed[0] == "[" else f"above {low:g}"
    return "that is finite"
