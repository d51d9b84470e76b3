"""What a command line may not set: keys that nothing reads, values of another kind."""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runtime.settings import flatten, setting_key


def check_additions(
    overrides: Sequence[str], *, groups: Container[str], known: Callable[[], set[str]]
) -> None:
    """Refuse ``+key=value`` of a key that nothing reads; ``+variant=NAME`` chooses from a group.

    Args:
        overrides: The words of the command.
        groups: Names that choose from a group.
        known: Gives all dotted keys of the configuration; asked only where it matters.

    Raises:
        UnknownNameError: If there is such a key.
    """
    added = [match[1] for text in overrides if (match := re.match(r"\+{1,2}(\w+)=", text))]
    if unread := [key for key in added if key not in groups]:
        keys = known()
        for key in unread:
            if key not in {name.partition(".")[0] for name in keys}:
                raise UnknownNameError("key", key, {*keys, "variant"})


def check_types(
    overrides: Sequence[str],
    settings: Mapping[str, Any],
    *,
    groups: Container[str],
    without: Callable[[list[str]], Mapping[str, Any]],
) -> None:
    """Hold what was set on the command line against what it replaces.

    Args:
        overrides: ``key=value`` of everything that the user set.
        settings: All that follows from it.
        groups: Keys that choose parts, not values.
        without: Gives the settings that follow from a part of the overrides.

    Raises:
        UserError: If a value is of another kind than the one that it replaces.
    """
    found = dict(flatten(settings))
    keys = [key for key in map(setting_key, overrides) if key not in groups]
    doubtful = [key for key in keys if isinstance(found.get(key), str | bool | float | list)]
    if doubtful:
        kept = [o for o in overrides if setting_key(o) not in doubtful]
        defaults = dict(flatten(without(kept)))
        for key in doubtful:
            _check_type(key, found[key], defaults.get(key))


def _check_type(key: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = type(value) is int, f"a whole number, such as {default}"
    elif isinstance(default, float):
        fits, wanted = type(value) in (int, float), f"a number, such as {default}"
    else:
        return
    if not fits:
        raise UserError(f"{key} must be {wanted}, got {value!r}.")
