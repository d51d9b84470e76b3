"""The arguments of an agent from Python: a run's configuration, an environment that fits it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mbrl_flat.cli.composition import compose_values
from mbrl_flat.cli.environment_units import env_words
from mbrl_flat.errors import UserError
from mbrl_flat.evaluation.multitask import shapes_of
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.loading import check_shapes
from mbrl_flat.runs.parts import Parts
from mbrl_flat.sweeps import quoted
from mbrl_flat.training.checkpoint import load_safely


def compose_arguments(
    agent: str,
    env: Any,
    settings: Mapping[str, Any] | None,
    *,
    preset: str,
    optimizer: str,
    rho: float | None,
    seed: int,
) -> DictConfig:
    """Compose what ``TrainableAgent`` was given; see there.

    Returns:
        The configuration.

    Raises:
        UserError: If a name is not known or a value of the wrong type.
    """
    for name, value in (("preset", preset), ("optimizer", optimizer)):
        if not isinstance(value, str):
            raise UserError(f"{name} must be a name such as 'cpu' or 'sam', got {value!r}.")
    if not isinstance(settings, Mapping | None) or not all(
        isinstance(key, str) for key in settings or ()
    ):
        raise UserError(f"settings must be values by dotted names, got {settings!r}.")
    values = dict(settings or {})
    words = [f"agent={agent}", f"preset={quoted(preset)}", f"optimizer={quoted(optimizer)}"]
    words += env_words(env)
    words += [f"{key}={values.pop(key)}" for key in list(values) if "/" in key]
    words.append(f"seed={seed}")
    if rho is not None:
        values["optimizer.rho"] = rho
    return compose_values(words, values)


def check_environment(config: RunConfig, parts: Parts, folder: Path) -> None:
    """Refuse an environment that is not the one of a run.

    Args:
        config: The run's configuration.
        parts: Its parts, with the environment that was given.
        folder: The run's folder; without a checkpoint there is nothing to compare with.

    Raises:
        UserError: If it has other observations or actions.
    """
    file = folder / "checkpoints" / "latest.pt"
    if file.exists():
        spec = shapes_of(parts.vectors, parts.env, seed=config.seed)
        check_shapes(load_safely(file), spec, folder)
