"""Checkpoints of the official TD-MPC2 code, converted to the networks here.

Two things differ. Names: ``_encoder.state.0.ln.weight`` there is ``encoder.0.norm.weight`` here;
the Q-functions are ``_Qs.params.0.weight`` in current checkpoints and ``_Qs.params.0``,
``_Qs.params.1``, ... in those before torch.compile. And the order of latent features: member m of
SimNorm group g is feature ``g V + m`` there and ``m G + g`` here, with G groups of V members. So
the rows that make a latent and the columns that read one are permuted. Of several tasks there is
the table of embeddings besides; the columns that read one come after those of the latent, as here.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828; official code at e9f5932
    (``WorldModel.state_dict`` and ``api_model_conversion``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.agents.tdmpc2.config import SIZES, TDMPC2Config
from mbrl_flat.errors import UserError
from mbrl_flat.specs import EnvSpec

Weights = dict[str, Tensor]
_OLD_ENSEMBLE = re.compile(r"(_Qs|_target_Qs)\.params\.(\d+)")
_OLD_NAMES = ("weight", "bias", "ln.weight", "ln.bias")


@dataclass(frozen=True)
class ConvertedWeights:
    """What the agent's modules load.

    Attributes:
        model: State of the ``WorldModel``.
        policy: State of the ``Policy``.
    """

    model: Weights
    policy: Weights


def convert(state: Any, spec: EnvSpec, config: TDMPC2Config) -> ConvertedWeights:
    """Convert the contents of an official checkpoint.

    Args:
        state: What ``torch.load`` gave.
        spec: Shapes of the environment that the agent is to act in.
        config: The agent's configuration.

    Returns:
        Weights for the agent's modules.

    Raises:
        UserError: If it is no such checkpoint, of other tasks, from pixels, of another size, or of
            an environment of other shapes.
    """
    inner = state.get("model") if isinstance(state, Mapping) and "model" in state else state
    if not isinstance(inner, Mapping):
        raise UserError("The file is no checkpoint of the official TD-MPC2 code: no weights in it.")
    weights = {_current_name(k): v for k, v in inner.items() if isinstance(v, Tensor)}
    _check_kind(weights, config)
    _check_tasks(weights, spec, config)
    _check_size(weights, spec, config)
    latent, groups = config.dims["latent_dim"], config.dims["latent_dim"] // config.simnorm_size
    order = torch.arange(latent).view(groups, config.simnorm_size).T.reshape(-1)
    model = {
        **_mlp(weights, "_encoder.state", "encoder", order, makes_latent=True, reads_latent=False),
        **_mlp(weights, "_dynamics", "dynamics", order, makes_latent=True),
        **_mlp(weights, "_reward", "reward", order),
        **_ensemble(weights, "_Qs.params", "q", order),
        **_ensemble(weights, "_target_Qs_params", "target_q", order),
    }
    if config.episodic:
        model |= _mlp(weights, "_termination", "termination", order)
    if config.task_dim:
        # They are looked up there with a norm of at most 1, whatever is stored.
        model["tasks.embedding.weight"] = weights["_task_emb.weight"].renorm(2, 0, 1.0)
    return ConvertedWeights(model, _mlp(weights, "_pi", "net", order))


def _current_name(name: str) -> str:
    """Name of a parameter of the Q-functions as current checkpoints have it."""
    old = _OLD_ENSEMBLE.fullmatch(name)
    if old is None:
        return name
    layer, part = divmod(int(old[2]), len(_OLD_NAMES))
    prefix = "_Qs.params" if old[1] == "_Qs" else "_target_Qs_params"
    return f"{prefix}.{layer}.{_OLD_NAMES[part]}"


def _check_kind(weights: Weights, config: TDMPC2Config) -> None:
    """Refuse what is no checkpoint on state observations."""
    if any(name.startswith("_encoder.rgb") for name in weights):
        raise UserError(
            "This checkpoint was trained from pixels, and only those trained on states can be "
            "evaluated; choose one of the latter."
        )
    needed = ("_encoder.state.0", "_dynamics.0", "_reward.2", "_pi.2", "_Qs.params.2")
    for name in (*needed, "_target_Qs_params.2"):
        if f"{name}.weight" not in weights:
            raise UserError(
                f"The file is no checkpoint of the official TD-MPC2 code: it lacks {name}.weight."
            )
    if ("_termination.0.weight" in weights) != config.episodic:
        has = "a" if not config.episodic else "no"
        raise UserError(
            f"The checkpoint has {has} termination head; set "
            f"agent.config.episodic={str(not config.episodic).lower()}."
        )


def _check_tasks(weights: Weights, spec: EnvSpec, config: TDMPC2Config) -> None:
    """Refuse a checkpoint of another number of tasks, or with embeddings of another size."""
    table = weights.get("_task_emb.weight", torch.zeros(0, 0))
    if table.shape[1] != config.task_dim:
        tasks = f"{len(table)} tasks, told apart by {table.shape[1]} numbers" if len(table) else ""
        fix = f"set agent.config.task_dim={table.shape[1]}"
        raise UserError(
            f"The checkpoint is of {tasks or 'a single task'}, and the agent has "
            f"task_dim={config.task_dim}; {fix}{' and env=multitask' if tasks else ''}."
        )
    if len(table) != (len(spec.tasks) if config.task_dim else 0):
        raise UserError(
            f"The checkpoint is of {len(table)} tasks, and this environment has "
            f"{len(spec.tasks)}; the published ones of DeepMind Control are env.task=mt30."
        )


def _check_size(weights: Weights, spec: EnvSpec, config: TDMPC2Config) -> None:
    """Refuse a checkpoint of another size, or of an environment of other shapes."""
    encoder, policy = weights["_encoder.state.0.weight"], weights["_pi.2.weight"]
    layers = sum(bool(re.fullmatch(r"_encoder\.state\.\d+\.weight", name)) for name in weights)
    found = {
        "enc_dim": encoder.shape[0],
        "mlp_dim": policy.shape[1],
        "latent_dim": weights["_dynamics.2.weight"].shape[0],
        "num_enc_layers": layers,
        "num_q": weights["_Qs.params.2.weight"].shape[0],
    }
    if found != config.dims:
        labels = [label for label, dims in SIZES.items() if dims == found]
        fix = f"set agent.config.size={labels[0]}" if labels else "no size here has its layers"
        raise UserError(
            f"The checkpoint has {_described(found, labels)}, and the agent has "
            f"{_described(config.dims, [str(config.size)])}; {fix}."
        )
    bins = weights["_reward.2.weight"].shape[0]
    if bins != config.num_bins:
        raise UserError(
            f"The checkpoint has {bins} bins, and the agent has {config.num_bins}; "
            f"set agent.config.num_bins={bins}."
        )
    theirs = (encoder.shape[1] - config.task_dim, policy.shape[0] // 2)
    ours = (sum(shape[0] for shape in spec.observed.values()), spec.action.size)
    if theirs != ours:
        raise UserError(
            f"The checkpoint was trained on {theirs[0]} observations and {theirs[1]} actions, and "
            f"this environment has {ours[0]} and {ours[1]}; choose its task by env.task=..."
        )


def _described(dims: Mapping[str, int], labels: list[str]) -> str:
    size = f"size {labels[0]}" if labels else "an unknown size"
    return f"{size} ({', '.join(f'{name} {number}' for name, number in dims.items())})"


def _mlp(
    weights: Weights,
    theirs: str,
    ours: str,
    order: Tensor,
    *,
    makes_latent: bool = False,
    reads_latent: bool = True,
) -> Weights:
    """Weights of one network under its new names, latent features in their new order."""
    layers: dict[int, Weights] = {}
    for name, value in weights.items():
        if found := re.fullmatch(rf"{re.escape(theirs)}\.(\d+)\.(.+)", name):
            layers.setdefault(int(found[1]), {})[found[2]] = value
    converted: Weights = {}
    for number, layer in sorted(layers.items()):
        parts = dict(layer)
        if number == 0 and reads_latent:
            parts["weight"] = _reorder_columns(parts["weight"], order)
        if number == max(layers) and makes_latent:
            parts = {name: value[order] for name, value in parts.items()}
        normed = "ln.weight" in parts
        for name, value in parts.items():
            kind = "norm." if name.startswith("ln.") else "linear." if normed else ""
            converted[f"{ours}.{number}.{kind}{name.removeprefix('ln.')}"] = value
    return converted


def _ensemble(weights: Weights, theirs: str, ours: str, order: Tensor) -> Weights:
    """Weights of the Q-functions, with their members in front."""
    plain = _mlp(weights, theirs, ours, order)
    hidden = re.compile(rf"{ours}\.(\d+)\.(linear|norm)\.(.+)")
    kinds = {"linear": "hidden", "norm": "norms"}
    converted: Weights = {}
    for name, value in plain.items():
        found = hidden.fullmatch(name)
        if found is not None:
            converted[f"{ours}.{kinds[found[2]]}.{found[1]}.{found[3]}"] = value
        else:
            converted[f"{ours}.last.{name.rsplit('.', maxsplit=1)[-1]}"] = value
    return converted


def _reorder_columns(weight: Tensor, order: Tensor) -> Tensor:
    """Columns that read a latent come in its new order; those of actions after it stay."""
    latent = weight[..., order]
    return torch.cat([latent, weight[..., len(order) :]], -1)
