"""Build what a configuration describes, and check every value where it is used.

A node with ``_target_`` becomes a call of that function or class, or a ``functools.partial`` of it
with ``_partial_: true``. Keys and values are held against its signature: an unknown key, text where
a number belongs and ``null`` where a value is needed are refused by their dotted names.
"""

import dataclasses
import importlib
import inspect
import math
import re
import types
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints

from mbrl_flat.errors import MissingExtraError, UnknownNameError, UserError

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_PART = "a part with a _target_"
_SCALARS = (bool, int, float, str)
_BOUND = re.compile(r"clip|max_grad_norm")
_LARGEST = {
    "updates_per_step": 1000,
    "num_envs": 4096,
    "eval_episodes": 100_000,
    "episodes": 100_000,
    "horizon": 10_000,
    "sequence_length": 100_000,
    "iterations": 10_000,
    "action_repeat": 10_000,
    "frame_stack": 1000,
}
"""The most of what is counted, by the last part of a key; more never ends, or fits nowhere."""
_LARGEST_COUNT = 10_000_000
"""Of every other whole number, but for lengths in time, seeds and what a disk holds."""
_UNBOUNDED = re.compile(r"(steps|every|seed|capacity|start|length|size)$")


def build(node: Any, key: str = "") -> Any:
    """Build a node of the configuration and everything below it.

    Args:
        node: Plain values: mappings, lists, numbers, text.
        key: Its dotted name.

    Returns:
        The object; plain values as they are.

    Raises:
        UserError: If something cannot be built; names the key.
        MissingExtraError: If it needs a package that is not installed.
        UnknownNameError: If a key is not known.
    """
    if isinstance(node, list):
        return [build(value, f"{key}.{number}") for number, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    keys = {name: f"{key}.{name}" if key else str(name) for name in node}
    built = {name: build(node[name], keys[name]) for name in node if name not in _SPECIAL}
    if "_target_" not in node:
        return built
    target = locate(node["_target_"], f"{key}._target_")
    for name in _SPECIAL.keys() & node.keys():
        check_value(f"{key}.{name}", node[name], _SPECIAL[name])
    built = check_arguments(target, built, key)
    if node.get("_partial_"):
        return partial(target, **built)
    _check_complete(target, built, node, key)
    try:
        return target(**built)
    except MissingExtraError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, OSError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        place = "" if reason.startswith(key) else f" (at {key})"
        raise UserError(f"{reason}{place}") from error


_SPECIAL: Mapping[str, Any] = {
    "_target_": str,
    "_partial_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_recursive_": bool,
}
"""What Hydra's own keys of a part take."""


def _check_complete(target: Any, given: Mapping[str, Any], node: Any, key: str) -> None:
    """Refuse to build a part without an argument that has no default."""
    for name in _arguments(target)[0]:
        if name not in given and is_required(target, name):
            how = f"give it: +{key}.{name}=VALUE"
            if "_partial_" in node:
                how = f"{key}._partial_=true leaves it to the run"
            raise UserError(f"{key} needs a value of {name}; {how}.")


def locate(path: Any, key: str) -> Any:
    """Import the function or class that a dotted path names.

    Args:
        path: Such as ``mbrl_flat.optim.methods.sam.sam``.
        key: Dotted name of the configuration that holds it.

    Returns:
        The function or class.

    Raises:
        UserError: If there is none.
    """
    parts = str(path).split(".")
    for cut in range(len(parts) - 1, 0, -1) if all(map(str.isidentifier, parts)) else ():
        module = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and f"{module}.".startswith(f"{error.name}."):
                continue
            raise UserError(f"{key}={path} cannot be imported: {error}.") from error
        try:
            for name in parts[cut:]:
                found = getattr(found, name)
        except AttributeError:
            break
        if callable(found):
            return found
    raise UserError(f"{key}: there is no function or class {path}; check its module and name.")


def check_arguments(target: Any, given: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Hold arguments against the signature of a function or class.

    Args:
        target: The function or class.
        given: Arguments by name.
        key: Dotted name of the configuration that gives them.

    Returns:
        The arguments, a number where a name belongs as text.

    Raises:
        UserError: If a value is of another type than the annotation says.
        UnknownNameError: If the signature has no such argument.
    """
    hints, open_ended = _arguments(target)
    fitting = dict(given)
    for name, value in given.items():
        if name in hints:
            check_value(f"{key}.{name}", value, hints[name])
            if hints[name] is str and isinstance(value, int | float):
                fitting[name] = str(value)
        elif not open_ended:
            raise UnknownNameError("key", f"{key}.{name}", [f"{key}.{known}" for known in hints])
    return fitting


def _arguments(target: Any) -> tuple[dict[str, Any], bool]:
    """Annotations of the arguments that can be given by name, and whether any others can."""
    try:
        parameters = inspect.signature(target).parameters.values()
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (TypeError, ValueError, NameError):
        return {}, True
    found, open_ended = {}, False
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and get_origin(hint) is Unpack:
            found |= get_type_hints(get_args(hint)[0])
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            found[parameter.name] = hint
    return found, open_ended


def is_required(target: Any, name: str) -> bool:
    """Whether a function or class has no default for an argument."""
    parameter = inspect.signature(target).parameters.get(name)
    return parameter is not None and parameter.default is parameter.empty


def build_config(schema: type[Any], settings: Mapping[str, Any], key: str = "") -> Any:
    """Build a dataclass from settings that must be its fields; dataclasses in it likewise.

    Args:
        schema: The dataclass whose fields the values are checked against.
        settings: Values by name; what is absent has its default.
        key: Dotted name of ``settings``.

    Returns:
        An instance.

    Raises:
        UserError: If a value is of another type.
        UnknownNameError: If there is no such field.
    """
    hints = get_type_hints(schema)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{key}.{name}" if key else name
        hint = hints.get(name)
        if hint is None:
            raise UnknownNameError("key", path, [f"{key}.{n}" if key else n for n in hints])
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            values[name] = build_config(hint, value, path)  # type: ignore[arg-type]
            continue
        check_value(path, value, hint)
        values[name] = float(value) if hint is float else value
    return schema(**values)


def check_value(key: str, value: Any, hint: Any) -> None:
    """Refuse a value that an annotation does not allow.

    Args:
        key: Its dotted name.
        value: The value.
        hint: The annotation; what it says of other than plain values is not checked.

    Raises:
        UserError: If it is of another type.
    """
    if not _fits(value, hint):
        raise UserError(wrong_value(key, value, hint))
    _check_size(key, value)
    _check_finite(key, value)


def _check_finite(key: str, value: Any) -> None:
    """Refuse numbers that are not finite, also within mappings and lists."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_finite(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            _check_finite(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        # A bound on a gradient or a step may be infinite, which means that there is none.
        unbounded = value == math.inf and _BOUND.search(key)
        if not (unbounded or (math.isinf(value) and key.startswith("env.kwargs."))):
            raise UserError(f"{key} must be finite, got {value}.")


def wrong_value(key: str, value: Any, hint: Any) -> str:
    """Say which values a key takes, and which one it was given."""
    return f"{key} must be {describe(hint)}, got {'null' if value is None else repr(value)}."


def _check_size(key: str, value: Any) -> None:
    """Refuse a count that no run could make or hold."""
    name = key.rpartition(".")[2]
    free = isinstance(value, float) or _UNBOUNDED.search(name)
    largest = _LARGEST.get(name, math.inf if free else _LARGEST_COUNT)
    if isinstance(value, int | float) and largest < value < math.inf:
        raise UserError(f"{key} must be at most {largest:,}, got {value:,}; give a smaller one.")


def describe(hint: Any) -> str:
    """What may be written for an annotation, in words."""
    if get_origin(hint) in (Union, types.UnionType):
        words = [describe(one) for one in get_args(hint) if one is not type(None)]
        plain = [word for word in dict.fromkeys(words) if word != _PART] or [_PART]
        return " or ".join([*plain, *(["null"] if type(None) in get_args(hint) else [])])
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    origin = get_origin(hint) or hint
    if inspect.isclass(origin) and origin not in _NAMES:
        if issubclass(origin, Mapping):
            return "a mapping, such as {a: 1}"
        if issubclass(origin, Sequence):
            return f"a list, such as [{','.join('abcdefgh'[: _length(hint) or 2])}]"
    return _NAMES.get(hint, _PART)


def _length(hint: Any) -> int:
    """How many values a tuple's annotation says it has; 0 where it is any number."""
    inner = get_args(hint) if get_origin(hint) is tuple else ()
    return 0 if Ellipsis in inner else len(inner)


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(hint))
    if origin in (None, type(None)):
        return value is None
    if origin in _SCALARS:
        # A size may be written 5 where it is the name of one.
        return type(value) in {float: (int, float), str: (str, int, float)}.get(origin, (origin,))
    known = inspect.isclass(origin) and origin not in (Any, object)
    return not known or _fits_class(value, origin, hint)


def _fits_class(value: Any, origin: type[Any], hint: Any) -> bool:
    if isinstance(value, list | tuple) and issubclass(origin, Sequence):
        if len(value) != (_length(hint) or len(value)):
            return False
        kinds = {one for one in get_args(hint) if one is not Ellipsis}
        return len(kinds) != 1 or all(_fits(one, *kinds) for one in value)
    if isinstance(value, str) and issubclass(origin, Sequence):
        return origin is Sequence  # one name stands for a list of one
    if issubclass(origin, Mapping | Sequence):
        return isinstance(value, origin)
    if issubclass(origin, PurePath):
        return isinstance(value, str | PurePath)
    return value is not None and not isinstance(value, (*_SCALARS, list, dict))
