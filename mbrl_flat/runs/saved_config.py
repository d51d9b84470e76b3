"""Read the configuration of an existing run so that nothing in it can execute code.

A run folder may come from someone else. Of its ``config.yaml`` only values are used: what is built
(``_target_``) must be something that the installed configurations build too, and is built in the
way that they say. Anything else, such as a user's own environment, must be named by ``trust``.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbrl_flat.errors import UserError
from mbrl_flat.logging.labels import current_names
from mbrl_flat.runs.renamed import with_current_names
from mbrl_flat.runtime.plain_files import read_yaml

Catalogue = Mapping[str, Mapping[str, Any]]
"""What the installed configurations build: ``_target_`` to the other keys with underscores."""

_OWN_MODULES = ("ale_py", "minatar")
"""Modules that may stand before the colon of a Gymnasium task without being named by ``trust``."""
_CODE_KEYS = ("env", "model", "wrapper")
"""Keys whose values name a function or class by a dotted path, beside ``_target_``."""


def read_catalogue(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Collect what configurations build.

    Args:
        files: The YAML files of the installed configurations.

    Returns:
        The catalogue.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for _, node in _nodes(read_yaml(file)):
            if isinstance(node, dict) and "_target_" in node:
                special = {k: v for k, v in node.items() if re.fullmatch(r"_\w+_", k)}
                found.setdefault(str(node["_target_"]), special)
            if isinstance(node, dict):
                named = [v for k, v in node.items() if k in _CODE_KEYS and _is_dotted(v)]
                named += [path for _, path in _named_code(node)]
                found.update({path: {} for path in named if path not in found})
    return found


def read_saved_config(
    folder: Path, *, catalogue: Catalogue, trust: Sequence[str] = ()
) -> dict[str, Any]:
    """Read a run's ``config.yaml`` as plain values.

    Args:
        folder: The run's folder, which may have been moved.
        catalogue: What may be built.
        trust: Modules, or functions and classes by their dotted paths, that may be built as well;
            folders outside the run that may be written to.

    Returns:
        Its settings, under current names, with the paths inside the folder as they are now.

    Raises:
        UserError: If the file is damaged, or builds or writes to something that is not trusted.
    """
    file = folder / "config.yaml"
    settings = with_current_names(read_yaml(file))
    settings.pop("trust", None)
    names = settings.get("names", {})
    if not isinstance(names, dict) or "run_dir" not in settings:
        raise UserError(f"{file} is damaged (it is not the configuration of a run); restore it.")
    if names:
        settings["names"] = current_names(names)
    before, settings["run_dir"] = settings["run_dir"], str(folder)
    for key, node in _nodes(settings):
        if isinstance(node, dict):
            _check_built(key, node, file, catalogue, trust)
            if isinstance(inner := node.get("folder"), str):
                node["folder"] = _inside(f"{key}folder", inner, before, folder, trust)
        elif isinstance(node, str) and "${" in node:
            raise UserError(f"{file} is damaged ({key[:-1]} refers to {node}); restore it.")
    return settings


def foreign_targets(settings: Mapping[str, Any], catalogue: Catalogue) -> list[str]:
    """What a user's own configuration builds beyond the catalogue: to be trusted when resumed."""
    nodes = [node for _, node in _nodes(settings) if isinstance(node, dict)]
    built = [str(node["_target_"]) for node in nodes if "_target_" in node]
    named = [name for node in nodes for _, name in _named_code(node)]
    return sorted({name for name in (*built, *named) if name not in catalogue})


def _check_built(
    key: str, node: dict[str, Any], file: Path, catalogue: Catalogue, trust: Sequence[str]
) -> None:
    """Refuse what is not trusted; take how it is built from the installed configurations."""
    if "_target_" in node:
        path = str(node["_target_"])
        if path in catalogue:
            for special in [name for name in node if re.fullmatch(r"_\w+_", name)]:
                del node[special]
            node.update({"_target_": path, **catalogue[path]})
        elif not _is_trusted(path, trust):
            raise _untrusted(f"{key}_target_", path, file)
    for name in _CODE_KEYS:
        path = str(node.get(name))
        if _is_dotted(node.get(name)) and path not in catalogue and not _is_trusted(path, trust):
            raise _untrusted(f"{key}{name}", path, file)
    for name, path in _named_code(node):
        if path not in catalogue and not _is_trusted(path, trust):
            raise _untrusted(f"{key}{name}", path, file)


def _named_code(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What values name to be imported by other packages, with the keys that name it."""
    for key, word in _nodes(node.get("task"), "task."):
        module = word.rpartition(":")[0] if isinstance(word, str) else ""
        if module and module not in _OWN_MODULES:  # ``module:Id``
            yield key[:-1], module
    if isinstance(source := node.get("pipeline"), str):  # its files say which classes are built
        yield "pipeline", source
    for key, word in _nodes(node.get("kwargs"), "kwargs."):  # of gymnasium.make
        if isinstance(word, str) and _is_importable(word):
            yield key[:-1], word.replace(":", ".")


def _is_importable(text: str) -> bool:
    """Whether ``module:name`` or ``module.name`` is of a module that there is."""
    module = re.split("[.:]", text)[0]
    try:
        return module != text and importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _is_dotted(value: Any) -> bool:
    # Not only identifiers: Python also imports modules whose names have dashes or spaces.
    return isinstance(value, str) and "." in value


def _is_trusted(path: str, trust: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in trust)


def _untrusted(key: str, path: str, file: Path) -> UserError:
    path = " ".join(path.split())
    return UserError(
        f"{file} runs code that is not part of mbrl_flat: {key}={path}. If you trust that code and "
        f"this folder, add trust={path}."
    )


def _inside(key: str, path: str, before: Any, folder: Path, trust: Sequence[str]) -> str:
    """A folder inside the run, where it is now."""
    if isinstance(before, str) and before and Path(path).is_relative_to(before):
        path = str(folder / Path(path).relative_to(before))
    real = Path(path).resolve()
    roots = [folder, *map(Path, trust)]
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise UserError(
            f"{folder / 'config.yaml'} writes outside of its folder: {key}={path}. If you want "
            f"that, add trust={path}."
        )
    return path


def _nodes(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested settings, with its dotted name and a dot."""
    yield key, value
    if isinstance(value, dict):
        for name, inner in list(value.items()):
            yield from _nodes(inner, f"{key}{name}.")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _nodes(inner, f"{key}{number}.")
