"""Settings of an optimizer: numbers in intervals, choices, and radii that may follow a schedule."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mbrl_flat.optim.schedules import Schedule, check_radius
from mbrl_flat.settings import check_setting, kinds_of, setting

__all__ = ["check_settings", "setting"]


def check_settings(owner: Any, values: Mapping[str, Any] | None = None, *, where: str = "") -> None:
    """Check settings of an optimizer as ``mbrl_flat.settings.check_settings`` does, and its radius.

    Args:
        owner: The dataclass, a class or an instance.
        values: Values by name; those of the instance if none are given.
        where: Name of the optimizer, for the error message.

    Raises:
        UserError: If a value is of the wrong kind, out of its interval, or none of the choices.
    """
    for item in fields(owner):
        if values is not None and item.name not in values:
            continue
        value = getattr(owner, item.name) if values is None else values[item.name]
        if Schedule in kinds_of(item.type):
            check_radius(value, name=item.name)
        else:
            check_setting(item, value, where=where)
