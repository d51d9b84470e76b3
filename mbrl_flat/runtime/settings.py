"""Nested settings by their dotted names."""

from collections.abc import Iterable, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Every setting by its dotted name."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dotted_keys(tree: Mapping[str, Any]) -> set[str]:
    """Names of all settings of a nested mapping, and of what holds them."""
    paths = [key.split(".") for key, _ in flatten(tree)]
    return {".".join(path[:n]) for path in paths for n in range(1, len(path) + 1)}


def setting_key(override: str) -> str:
    """Name of what a word of the command line sets, such as ``seed`` of ``seed=1``."""
    return override.lstrip("+~").partition("=")[0]


def format_value(value: Any) -> str:
    """A setting as text; equal numbers are equal text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def has_prefix(key: str, prefixes: tuple[str, ...]) -> bool:
    """Say whether a dotted name is one of ``prefixes`` or lies below one."""
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
