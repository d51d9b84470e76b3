"""Parameter groups that remember whose their parameters are, and the choice among them.

A group made here has ``flat_name`` (of the module), ``param_names`` (dotted, below the module's
name), ``flat_kinds`` (``norm``, ``bias`` or ``weight``), ``flat_owners`` (class names of the
modules that own the parameters) and, if there are any, ``flat_buffers`` (all of the module).

A parameter is of the kind ``norm`` if its owner is a normalisation layer of torch or of this
project, or if the name of the owner's class ends in ``Norm`` or has ``Norm`` before a capital or a
digit (``LlamaRMSNorm``, ``LayerNorm2d``, ``BatchNormAct2d``) and it is no linear layer or
convolution.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.models.ensemble import EnsembleLayerNorm
from mbrl_flat.optim.parameters import ParamGroup

NORM_TYPES: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    EnsembleLayerNorm,
)
"""Types whose parameters are of the kind ``norm``."""
_PRODUCTS = (nn.Linear, nn.Bilinear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORM_NAME = re.compile(r"(?<!Weight)(?<!Spectral)Norm(?=$|[A-Z0-9_])")
_ABSENT = {
    "norm": "the model has no normalisation layer",
    "bias": "the model has no bias",
    "weight": "the model has no weight outside of normalisation layers",
}
"""Why a kind of parameters selects nothing."""


def module_groups(
    modules: nn.Module | Mapping[str, nn.Module], *, lr_scales: Mapping[str, float] | None = None
) -> list[ParamGroup]:
    """One parameter group for each module.

    Args:
        modules: Modules by the names that users select, or one without a name. A parameter that
            several of them share belongs to the first.
        lr_scales: Learning rate relative to the base's, by module name.

    Returns:
        The groups; modules without parameters have none.

    Raises:
        UserError: If something else is given.
    """
    modules = {"": modules} if isinstance(modules, nn.Module) else modules
    if not isinstance(modules, Mapping) or not all(
        isinstance(module, nn.Module) for module in modules.values()
    ):
        raise UserError(f"module_groups takes a module or modules by name, got {type(modules)}.")
    scales = lr_scales or {}
    seen: set[nn.Parameter] = set()
    groups: list[ParamGroup] = []
    for name, module in modules.items():
        rows = [row for row in _describe(module) if row[0] not in seen]
        seen.update(row[0] for row in rows)
        if not rows:
            continue
        group: ParamGroup = {
            "params": [param for param, *_ in rows],
            "flat_name": name,
            "param_names": [f"{name}.{path}" if name else path for _, path, *_ in rows],
            "flat_kinds": [kind for *_, kind, _ in rows],
            "flat_owners": [owner for *_, owner in rows],
        }
        if buffers := list(module.buffers()):
            group["flat_buffers"] = buffers
        if name in scales:
            group["flat_lr_scale"] = scales[name]
        groups.append(group)
    return groups


def _describe(module: nn.Module) -> list[tuple[nn.Parameter, str, str, str]]:
    """Parameter, path, kind and owner's class of all parameters, shared ones once."""
    rows: dict[nn.Parameter, tuple[nn.Parameter, str, str, str]] = {}
    for owner_path, owner in module.named_modules():
        for leaf, param in owner.named_parameters(recurse=False):
            path = f"{owner_path}.{leaf}" if owner_path else leaf
            rows.setdefault(param, (param, path, _kind(owner, leaf), type(owner).__name__))
    return list(rows.values())


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer, by its type or the name of its class."""
    named = _NORM_NAME.search(type(module).__name__) and not isinstance(module, _PRODUCTS)
    return isinstance(module, NORM_TYPES) or bool(named)


def _kind(owner: nn.Module, leaf: str) -> str:
    if is_norm(owner):
        return "norm"
    return "bias" if is_bias(leaf) else "weight"


def is_bias(name: str) -> bool:
    """Whether a parameter of this name is a bias: ``0.bias``, ``in_proj_bias``, ``bias_ih_l0``."""
    return "bias" in name.rpartition(".")[2].split("_")


def selected(groups: Sequence[ParamGroup], only: Sequence[str] | None) -> set[nn.Parameter]:
    """Parameters that a user's choice names.

    Args:
        groups: All parameter groups of the optimizer.
        only: Names of groups (``encoder``), dotted names or their beginnings (``encoder.0``),
            shell patterns (``*.linear.weight``), kinds (``norm``, ``bias``, ``weight``) or classes
            of layers (``LlamaRMSNorm``). With a minus before it, what it names is taken out:
            ``[-norm]`` is all but norm layers.
            ``None`` means all.

    Returns:
        The parameters.

    Raises:
        UserError: If nothing is chosen.
        UnknownNameError: If a name fits nothing.
    """
    if only is None:
        return {param for group in groups for param in group["params"]}
    listed = isinstance(only, Sequence) and all(isinstance(name, str) for name in only)
    if isinstance(only, str) or not listed or not only:
        raise UserError(
            f"only={only!r} selects nothing; give a list of module names such as "
            f"[encoder, dynamics], or null for all parameters."
        )
    taken_out = [name for name in only if name.startswith("-")]
    chosen = {p for group in groups for p in group["params"]}
    if len(taken_out) < len(only):
        chosen = {p for name in only if name not in taken_out for p in _named(groups, name)}
    for name in taken_out:
        chosen -= _named(groups, name[1:])
    if not chosen:
        raise UserError(f"only={list(only)} takes out every parameter; leave some to perturb.")
    return chosen


def _named(groups: Sequence[ParamGroup], wanted: str) -> set[nn.Parameter]:
    found = {p for group in groups for p in _matches(group, wanted)}
    if not found and wanted in _ABSENT and not any("flat_kinds" in group for group in groups):
        raise UserError(
            f"optimizer.only={wanted} needs to know which layers the parameters are of; give the "
            "model itself, or module_groups of its parts."
        )
    if not found and wanted in _ABSENT:
        raise UserError(f"optimizer.only={wanted} selects nothing: {_ABSENT[wanted]}.")
    if not found:
        raise UnknownNameError("module or kind", wanted, _names(groups), where="optimizer.only")
    return found


def _matches(group: ParamGroup, wanted: str) -> list[nn.Parameter]:
    params = group["params"]
    if group.get("flat_name") == wanted:
        return list(params)
    unknown = [""] * len(params)
    names, kinds, owners = (
        group.get(key, unknown) for key in ("param_names", "flat_kinds", "flat_owners")
    )
    return [
        param
        for param, name, kind, owner in zip(params, names, kinds, owners, strict=True)
        if wanted in (kind, owner) or name.startswith(f"{wanted}.") or fnmatchcase(name, wanted)
    ]


def _names(groups: Sequence[ParamGroup]) -> list[str]:
    names = {str(group["flat_name"]) for group in groups if group.get("flat_name")}
    kinds = {kind for group in groups for kind in group.get("flat_kinds", [])}
    return sorted(names | kinds)
