"""Read small YAML and JSON files that someone else may have written.

A file is refused within a second if it is too large, nested too deeply, repeats parts of itself by
aliases (a few lines can then stand for gigabytes), or holds numbers that no machine type can hold.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import read_regular

_MAX_BYTES = 4 * 2**20
_MAX_DEPTH = 50
_MAX_VALUES = 20_000
"""And keys of a YAML file, whose reader takes longer for each than for a megabyte of text."""
_MAX_INTEGER = 2**63
_MAX_DIGITS = 24
"""Of an integer that a message repeats."""
_Base: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _Loader(_Base):
    """Reads ``1e-3`` as a number, dates and ``1:30`` as text, as the command line does.

    A key that is given twice is refused: readers differ in which of the two they take.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; see the class."""
        _unique((key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: Any) -> Any:
        """Build a number; what has colons could be longer than anyone waits for."""
        return node.value if ":" in str(node.value) else super().construct_yaml_int(node)

    def construct_yaml_float(self, node: Any) -> Any:
        """As for integers."""
        return node.value if ":" in str(node.value) else super().construct_yaml_float(node)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"),
    [*"-+0123456789"],
)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError)
"""What the reader raises, of itself also for a tag that does not fit its value, as ``!!bool x``."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the settings that a YAML file holds.

    Args:
        path: The file.

    Returns:
        A mapping of plain values.

    Raises:
        UserError: If it cannot be read, holds no settings, or is refused (see above).
    """
    text = _read(path)
    try:
        _check_events(yaml.parse(text, Loader=_Loader))
        settings = yaml.load(text, Loader=_Loader)
    except _UNREADABLE as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path} is damaged ({reason}); restore it.") from error
    return _checked(settings, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read the mapping that a JSON file holds; otherwise as ``read_yaml``."""
    text = _read(path)
    try:
        settings = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it.") from error
    return _checked(settings, path)


def _read(path: Path) -> str:
    try:
        return read_regular(path, limit=_MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged (not UTF-8 text); restore it.") from error


def _check_events(events: Iterable[yaml.Event]) -> None:
    depth = 0
    for number, event in enumerate(events):
        if number > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES:,} keys and values")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"alias *{event.anchor}; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")


def _checked(settings: Any, path: Path) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise UserError(f"{path} is damaged (it holds no settings); restore it.")
    try:
        check_values(settings)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it.") from error
    return settings


def check_values(value: Any, key: str = "", depth: int = 0) -> None:
    """Refuse keys that are not text, integers beyond 64 bits, deep nesting, and other kinds.

    YAML's bytes, sets and pairs could hide from a check what a later copy of them lays open.

    Args:
        value: Nested mappings and lists.
        key: Dotted name of ``value``.
        depth: Levels above it.

    Raises:
        ValueError: If there is such a value; names it.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise ValueError(f"the key {name!r} below {key or 'the top'} is not text")
            check_values(inner, f"{key}.{name}" if key else name, depth + 1)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            check_values(inner, f"{key}[{number}]", depth + 1)
    elif isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        digits = str(value)
        given = digits if len(digits) <= _MAX_DIGITS else f"{digits[:_MAX_DIGITS]}..."
        raise ValueError(f"{key} must be within +-2**63 (19 digits), got {given}")
    elif value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{key} is a {type(value).__name__}, not text, a number or a list")
