"""A run that exists: where it is, and what of its settings may change when it resumes."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import check_inside
from mbrl_flat.runtime.settings import has_prefix, setting_key

_RESUMABLE = (
    "resume", "steps", "device", "threads", "debug", "progress", "parallel_envs",
    "trust", "on_nonfinite", "model_lr", "objective",
)  # fmt: skip
"""Keys that may differ when a run is resumed; everything else comes from its folder."""
METHOD_SCALES = (
    "rho", "sigma", "inner_rho", "eta", "alpha", "beta", "gamma", "penalty_weight",
    "descent_weight", "mean_share", "ahead_weight", "percentile", "every",
)  # fmt: skip
"""Settings of an optimizer that may differ too: each step reads them, and no state holds them.

Rates of the base and of averages, and what a state is laid out by, are those of the checkpoint.
"""


def existing_run(path: str | None, *, study: bool = False) -> Path:
    """Find a run.

    Args:
        path: What the user wrote.
        study: Whether that of a study is meant, not of an agent.

    Returns:
        Its folder.

    Raises:
        UserError: If there is none, or one of the other kind.
    """
    if not path:
        raise UserError("Say which run: run=runs/NAME.")
    file = Path(path) / "config.yaml"
    if not file.is_file():
        raise UserError(f"There is no run at {path}: {file} is missing; check the path.")
    if (Path(path) / "study.json").exists() != study:
        kind, command = ("an agent", "train") if study else ("a study", "supervised")
        raise UserError(
            f"{path} is the run of {kind}; resume it by mbrl-flat-{command} resume={path}."
        )
    check_inside(Path(path))
    return Path(path)


def resumable_keys(overrides: Iterable[str]) -> Iterator[str]:
    """Names of the settings that a run resumes with.

    Args:
        overrides: ``key=value`` of everything that the user set.

    Yields:
        Each key.

    Raises:
        UserError: If a run cannot resume with another value of one.
    """
    for override in overrides:
        key = setting_key(override)
        scales = [f"optimizer.{name}" for name in METHOD_SCALES]
        if not has_prefix(key, (*_RESUMABLE, *scales, "wandb")):
            raise UserError(
                f"A resumed run keeps its settings, but {override} was given; with resume= only "
                f"{', '.join(_RESUMABLE[1:])}, wandb.* and, of optimizer.*, "
                f"{', '.join(METHOD_SCALES)} can be set."
            )
        yield key


def part_settings(overrides: Iterable[str]) -> list[str]:
    """Those words that choose or change a part: a saved run has its own."""
    return [o for o in overrides if re.match(r"[+~]*(agent|env|optimizer|preset)\b", o)]
