"""Agents, environments, optimizers and probes of other installed packages.

A package names them by entry points of the groups ``mbrl_flat.agents``, ``.envs``, ``.optimizers``
and ``.probes``; on the command line they are chosen like ours. The settings are the arguments of
the function or class that have a default.
"""

import dataclasses
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore

from mbrl_flat.errors import UserError, printable
from mbrl_flat.optim import OPTIMIZERS
from mbrl_flat.optim.registry import load_entry_points

KINDS = ("env", "agent", "probe")
"""Groups of configurations that entry points of ``mbrl_flat.<group>s`` extend, as optimizers do."""
_RUNTIME = ("spec", "optimizer", "device", "compile", "seed", "render", "index")
"""Arguments that a run gives itself."""


def plugin_names(kind: str) -> list[str]:
    """What installed packages add to ``env=``, ``agent=`` or ``probe=``."""
    return [point.name for point in entry_points(group=f"mbrl_flat.{kind}s")]


def offer_plugins(words: Iterable[str]) -> None:
    """Give Hydra the configurations of what these words of a command line choose.

    Args:
        words: Such as ``env=my_env``; a package is imported only where one of its parts is chosen.

    Raises:
        UserError: If a package that is chosen cannot be imported.
    """
    for word in words:
        group, _, value = word.lstrip("+").partition("=")
        kind = group.partition("@")[0]
        for name in value.split(","):
            if kind in KINDS:
                for point in entry_points(group=f"mbrl_flat.{kind}s", name=name):
                    _store(kind, name, _node(kind, point))
            elif kind == "optimizer" and name in OPTIMIZERS and not _is_ours(OPTIMIZERS[name].kind):
                _store(kind, name, _optimizer_node(name))


def plugin_targets() -> dict[str, dict[str, Any]]:
    """What installed packages build: ``_target_`` to the other keys with underscores."""
    nodes = []
    for kind in KINDS:
        for point in entry_points(group=f"mbrl_flat.{kind}s"):
            try:
                nodes.append(_node(kind, point))
            except UserError as error:
                sys.stderr.write(f"{printable(error)}\n")
    load_entry_points()
    foreign = [name for name, entry in OPTIMIZERS.items() if not _is_ours(entry.kind)]
    nodes += [_optimizer_node(name) for name in foreign]
    found = {}
    for node in (inner for outer in nodes for inner in _with_targets(outer)):
        found[node["_target_"]] = {k: node[k] for k in ("_target_", "_partial_") if k in node}
    return found


def _is_ours(kind: type[Any]) -> bool:
    return kind.__module__.startswith("mbrl_flat.")


def _with_targets(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "_target_" in node:
        yield node
    for value in node.values():
        if isinstance(value, Mapping):
            yield from _with_targets(value)


def _store(group: str, name: str, node: dict[str, Any]) -> None:
    ConfigStore.instance().store(group=group, name=name, node=node)


def _node(kind: str, point: EntryPoint) -> dict[str, Any]:
    """The configuration of what an entry point names."""
    try:
        target = point.load()
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist else point.module
        raise UserError(
            f"The package {package} offers {kind}={point.name}, but {point.value} cannot be "
            f"imported: {error}. Repair or uninstall it."
        ) from error
    node = {"_target_": point.value.replace(":", "."), **_settings(target)}
    if kind == "env" and "task" in inspect.signature(target).parameters:
        node.setdefault("task", point.name)
    return node if kind == "probe" else {**node, "_partial_": True}


def _optimizer_node(name: str) -> dict[str, Any]:
    entry = OPTIMIZERS[name]
    base = {"defaults": [{"base": "adam"}, "_self_"]} if entry.has_base else {}
    target = f"{entry.kind.__module__}.{entry.kind.__qualname__}"
    return {**base, "_target_": target, "_partial_": True, **entry.settings}


def _settings(target: Any) -> dict[str, Any]:
    """Arguments with their defaults; a dataclass becomes a part of its own."""
    found: dict[str, Any] = {}
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for name, parameter in inspect.signature(target).parameters.items():
        hint = hints.get(name)
        if name in _RUNTIME:
            continue
        if inspect.isclass(hint) and dataclasses.is_dataclass(hint):
            path = f"{hint.__module__}.{hint.__qualname__}"
            found[name] = {"_target_": path, **_settings(hint)}
        elif isinstance(parameter.default, int | float | str | None):
            found[name] = parameter.default
    return found
