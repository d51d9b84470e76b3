"""Parameter groups that remember whose their parameters are, and the choice among them.

A group made here has ``name`` (of the module), ``param_names`` (dotted, below the module's name),
``param_kinds`` (``norm`` by the type of the module that owns the parameter, never by its name;
otherwise ``bias`` or ``weight``) and, if there are any, ``statistics`` (the running ones of
BatchNorm).
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.models.ensemble import EnsembleLayerNorm
from mbrl_flat.optim.parameters import ParamGroup

NORM_TYPES: tuple[type[nn.Module], ...] = (
    _NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    EnsembleLayerNorm,
)
"""Types whose parameters are of the kind ``norm``."""
_ABSENT = {
    "norm": "the model has no normalisation layer",
    "bias": "the model has no bias",
    "weight": "the model has no weight outside of normalisation layers",
}
"""Why a kind of parameters selects nothing."""


def module_groups(
    modules: Mapping[str, nn.Module], *, lr_scales: Mapping[str, float] | None = None
) -> list[ParamGroup]:
    """One parameter group for each module.

    Args:
        modules: Modules by the names that users select. A parameter that several of them share
            belongs to the first.
        lr_scales: Learning rate relative to the base's, by module name.

    Returns:
        The groups; modules without parameters have none.
    """
    scales = lr_scales or {}
    seen: set[nn.Parameter] = set()
    groups: list[ParamGroup] = []
    for name, module in modules.items():
        rows = [row for row in _describe(module) if row[1] not in seen]
        seen.update(row[1] for row in rows)
        if not rows:
            continue
        group: ParamGroup = {
            "params": [param for _, param, _ in rows],
            "name": name,
            "param_names": [f"{name}.{path}" if name else path for path, _, _ in rows],
            "param_kinds": [kind for _, _, kind in rows],
        }
        statistics = _statistics(module)
        if statistics:
            group["statistics"] = statistics
        if name in scales:
            group["lr_scale"] = scales[name]
        groups.append(group)
    return groups


def _describe(module: nn.Module) -> list[tuple[str, nn.Parameter, str]]:
    """Path, parameter and kind of everything in a module, shared parameters once."""
    rows: list[tuple[str, nn.Parameter, str]] = []
    seen: set[nn.Parameter] = set()
    for owner_path, owner in module.named_modules():
        for leaf, param in owner.named_parameters(recurse=False):
            if param not in seen:
                seen.add(param)
                path = f"{owner_path}.{leaf}" if owner_path else leaf
                rows.append((path, param, _kind(owner, leaf)))
    return rows


def _statistics(module: nn.Module) -> list[Tensor]:
    layers = [layer for layer in module.modules() if isinstance(layer, _NormBase)]
    return [buffer for layer in layers for buffer in layer.buffers()]


def _kind(owner: nn.Module, leaf: str) -> str:
    if isinstance(owner, NORM_TYPES):
        return "norm"
    return "bias" if is_bias(leaf) else "weight"


def is_bias(name: str) -> bool:
    """Whether a parameter of this name is a bias: ``0.bias``, ``in_proj_bias``, ``bias_ih_l0``."""
    return "bias" in name.rpartition(".")[2].split("_")


def selected(groups: Sequence[ParamGroup], only: Sequence[str] | None) -> set[nn.Parameter]:
    """Parameters that a user's choice names.

    Args:
        groups: All groups.
        only: Names of groups (``encoder``), dotted names or their beginnings (``encoder.0``),
            shell patterns (``*.linear.weight``) or kinds (``norm``, ``bias``, ``weight``). With a
            minus before it, what it names is taken out: ``[-norm]`` is all but norm layers.
            ``None`` means all.

    Returns:
        The parameters.

    Raises:
        UserError: If nothing is chosen.
        UnknownNameError: If a name fits nothing.
    """
    if only is None:
        return {param for group in groups for param in group["params"]}
    if isinstance(only, str) or not only:
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
    if not found and wanted in _ABSENT and not any("param_kinds" in group for group in groups):
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
    if group.get("name") == wanted:
        return list(params)
    names = group.get("param_names", [""] * len(params))
    kinds = group.get("param_kinds", [""] * len(params))
    return [
        param
        for param, name, kind in zip(params, names, kinds, strict=True)
        if kind == wanted or name.startswith(f"{wanted}.") or fnmatchcase(name, wanted)
    ]


def _names(groups: Sequence[ParamGroup]) -> list[str]:
    names = {str(group["name"]) for group in groups if group.get("name")}
    kinds = {kind for group in groups for kind in group.get("param_kinds", [])}
    return sorted(names | kinds)
