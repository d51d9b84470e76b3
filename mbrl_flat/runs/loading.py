"""Whether a checkpoint fits the environment and the agent that it is loaded into."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from mbrl_flat.errors import UserError, printable
from mbrl_flat.evaluation.multitask import shapes_of
from mbrl_flat.interfaces import Agent, LoadsPretrained, TrainsWithOneOptimizer
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.parts import Parts, build_agent
from mbrl_flat.runs.resume import METHOD_SCALES
from mbrl_flat.runtime.device import use_threads
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.plain_files import read_yaml
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.training.checkpoint import load_safely


def check_shapes(saved: Mapping[str, Any], spec: EnvSpec, folder: Path) -> None:
    """Refuse an environment whose spaces have changed since the checkpoint was made.

    Args:
        saved: Content of the checkpoint; what an older one does not record is not checked.
        spec: Shapes of the environment now.
        folder: The run's folder, for the message.

    Raises:
        UserError: If observations or actions have other sizes, kinds or bounds; names them.
    """
    changes = [
        f"it had {was or 'no'} {name}, now has {now or 'none'}"
        for name, was, now in _changes(saved.get("shapes"), shapes_of_spec(spec))
    ] or [
        f"it had {name} {was or 'none'}, now {now or 'none'}"
        for name, was, now in _changes(saved.get("spaces"), spec.native)
    ]
    if changes:
        raise UserError(
            f"The environment is not the one that {folder} was trained on: {'; '.join(changes)}. "
            f"Use the version of its package or file that the run was made with, or start a new "
            f"run."
        )


def _changes(was: Mapping[str, Any] | None, now: Mapping[str, str]) -> list[tuple[str, Any, Any]]:
    """Names whose values differ, with both; none where nothing is recorded."""
    names = dict.fromkeys((*was, *now)) if was and now else ()
    return [(n, was.get(n), now.get(n)) for n in names if was and was.get(n) != now.get(n)]


def shapes_of_spec(spec: EnvSpec) -> dict[str, str]:
    """What a checkpoint records of an environment's spaces, by what a message calls it."""
    kind = "continuous" if isinstance(spec.action, Continuous) else "discrete"
    shapes = {f"{kind} actions": str(spec.action.size)}
    for name, shape in spec.obs.items():
        label = "observations" if name == "state" else f"entries of {name!r}"
        shapes[label] = "x".join(map(str, shape))
    return shapes


_UNFIT = (
    LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What values of other kinds or sizes raise where they are used."""


@contextmanager
def refused_if_unfit(file: Path) -> Iterator[None]:
    """Turn what goes wrong when a checkpoint is loaded into an error message.

    Raises:
        UserError: If the checkpoint lacks something or holds weights of other shapes.
    """
    try:
        yield
    except UserError:
        raise
    except _UNFIT as error:
        reason = (str(error) or repr(error)).splitlines()
        detail = next((line.strip() for line in reason if "size mismatch" in line), reason[0])
        raise UserError(
            f"The checkpoint {file} does not fit this run ({type(error).__name__}: {detail}); use "
            f"the settings, packages and environment that it was made with."
        ) from error


def check_weights(state: Any, file: Path, name: str = "agent") -> None:
    """Refuse an agent whose weights are not finite.

    Args:
        state: Nested containers of tensors.
        file: The checkpoint, for the message.
        name: Where ``state`` is in it.

    Raises:
        UserError: If a number in it is NaN or infinite; says which.
    """
    if isinstance(state, Mapping):
        for key, value in state.items():
            check_weights(value, file, f"{name}/{key}")
    elif isinstance(state, torch.Tensor) and state.is_floating_point() and not _finite(state):
        raise UserError(
            f"The checkpoint {file} holds numbers that are not finite, in {name}: its training "
            f"diverged; use an earlier checkpoint, such as checkpoint=best."
        )


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def load_agent(agent: Agent, saved: Mapping[str, Any], spec: EnvSpec, file: Path) -> None:
    """Give an agent the weights of a checkpoint.

    Args:
        agent: Freshly built.
        saved: Content of the checkpoint.
        spec: Shapes of the environment.
        file: The checkpoint's file, in ``checkpoints`` of the run's folder.

    Raises:
        UserError: If they do not fit, or are not finite.
    """
    check_shapes(saved, spec, file.parent.parent)
    with refused_if_unfit(file):
        if saved.get("weights_only") and isinstance(agent, LoadsPretrained):
            agent.load_pretrained(saved["agent"])
        else:
            agent.load_state_dict(saved["agent"])
        check_weights(saved["agent"], file)


class SavedAgent(NamedTuple):
    """The agent of a checkpoint, the shapes of its environment, and the step that it is of."""

    agent: Agent
    spec: EnvSpec
    step: int


def load_saved_agent(
    config: RunConfig,
    parts: Parts,
    folder: Path,
    checkpoint: str,
    *,
    device: torch.device,
    seed: int,
) -> SavedAgent:
    """Build the agent of a run and load one of its checkpoints.

    Args:
        config: The run's configuration.
        parts: Its pluggable parts.
        folder: The run's folder.
        checkpoint: ``latest`` or ``best``.
        device: Where the agent computes.
        seed: Of the environment that tells the shapes.

    Returns:
        The agent, the shapes and the step.

    Raises:
        UserError: If there is no such checkpoint, or it does not fit the run.
    """
    if checkpoint not in ("latest", "best"):
        raise UserError(f"checkpoint must be latest or best, got {checkpoint!r}.")
    use_threads(config.threads)
    file = folder / "checkpoints" / f"{checkpoint}.pt"
    saved = load_safely(file, device=device)
    spec = shapes_of(parts.vectors, parts.env, seed=seed)
    agent = build_agent(config, parts, spec, device)
    load_agent(agent, saved, spec, file)
    return SavedAgent(agent, spec, int(saved["step"]))


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a file of JSON lines; where that fails, say so; the caller prints it."""
    try:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
    except OSError as error:
        sys.stderr.write(
            f"{printable(file)} cannot be written ({error.strerror}); the results follow.\n"
        )


_MAY_CHANGE = ("steps", "device", "threads", "parallel_envs", "on_nonfinite", "model_lr")


def changed_settings(folder: Path, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Settings with which a run is resumed that its ``config.yaml`` has otherwise.

    Args:
        folder: The run's folder.
        config: With which it is resumed.

    Returns:
        Old and new value by name.
    """
    file = folder / "config.yaml"
    saved = read_yaml(file) if file.is_file() else {}
    pairs = {k: (saved[k], getattr(config, k)) for k in _MAY_CHANGE if k in saved}
    before = saved["optimizer"] if isinstance(config.optimizer, dict) and saved else {}
    for name in (name for name in METHOD_SCALES if name in before):
        pairs[f"optimizer.{name}"] = (before[name], config.optimizer[name])
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new}


def apply_settings(folder: Path, agent: Agent, changed: Mapping[str, tuple[Any, Any]]) -> None:
    """Write changed settings into ``config.yaml``; scale the learning rates that were loaded.

    Args:
        folder: The run's folder.
        agent: With the state of the checkpoint.
        changed: What ``changed_settings`` gave.
    """
    if not changed:
        return
    old, new = changed.get("model_lr", (0.0, 0.0))
    if old and isinstance(agent, TrainsWithOneOptimizer):
        for group in agent.optimizer.param_groups:
            group["lr"] *= new / old
    file = folder / "config.yaml"
    saved = read_yaml(file)
    for key, (_, value) in changed.items():
        above, _, last = key.rpartition(".")
        (saved[above] if above else saved)[last] = value
    write_text_atomically(file, yaml.safe_dump(saved, sort_keys=False))
