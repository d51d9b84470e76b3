"""By which words a run is found and grouped, at Weights & Biases and by ``mbrl-flat-compare``."""

import hashlib
from collections.abc import Mapping
from typing import Any

from mbrl_flat.runtime.settings import flatten, format_value, has_prefix

BOOKKEEPING = (
    "seed", "run_dir", "resume", "names", "device", "threads", "compile", "debug", "progress",
    "on_nonfinite", "log_every", "eval_every", "probe_every", "checkpoint_every", "video", "wandb",
    "parallel_envs", "preset", "steps", "eval_episodes", "probes",
    "objective", "trust",
)  # fmt: skip
"""Settings that do not make another method: where, how long and how often it was measured."""
RENAMED = {"arm": "variant"}
"""Former names of a run's parts, which saved runs and command lines may still have."""
_PARTS = ("agent", "env", "optimizer", "variant")


def task_label(env: Mapping[str, Any]) -> str:
    """The task, and what makes its observations incomparable with the usual ones."""
    pixels = env.get("obs") == "rgb"
    fast = pixels and env.get("fast_rendering")
    return f"{env['task']}{'-rgb' if pixels else ''}{'-fast_rendering' if fast else ''}"


def part_names(choices: Mapping[str, str], env: Mapping[str, Any]) -> dict[str, str]:
    """Names of the parts of a run: agent, env, optimizer, task, and the variant if there is one."""
    names = {name: choices[name] for name in ("agent", "env", "optimizer")}
    variant = {"variant": choices["variant"]} if choices.get("variant") else {}
    return {**names, "task": task_label(env), **variant}


def current_names(names: Mapping[str, Any]) -> dict[str, Any]:
    """The names of a saved run; runs of earlier revisions call the variant ``arm``."""
    return {RENAMED.get(key, key): value for key, value in names.items()}


def run_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Labels of a run at Weights & Biases.

    Args:
        config: Its configuration, with what the user called its parts in ``names``.

    Returns:
        ``group``, ``job_type`` and ``tags``. Two runs have the same group when
        ``mbrl-flat-compare`` takes them for seeds of one setting.
    """
    names = config["names"]
    words = [names["task"], names["agent"], names["optimizer"], *_own_settings(config)]
    tags = [names["task"], names["agent"], names["optimizer"], str(config.get("preset", "default"))]
    return {
        # The service takes 128 letters.
        "group": f"{' '.join(words)[:120]} {_digest(config)}",
        "job_type": "train",
        # The service takes 64 letters, and nothing at all of a run with a longer one.
        "tags": list(dict.fromkeys(tag[:64] for tag in tags)),
    }


def run_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the names that charts group by at its top: charts see no deeper.

    Args:
        config: The configuration.

    Returns:
        It with ``task``, ``agent_name``, ``env_name``, ``optimizer_name``, of a study
        ``variant_name``, and ``group_name``, the group of ``run_labels``: charts cannot group by
        that label itself.
    """
    names = config["names"]
    flat = {f"{part}_name": names[part] for part in _PARTS if part in names}
    group = run_labels(config)["group"]
    return {**config, **flat, "task": names["task"], "group_name": group}


def _own_settings(config: Mapping[str, Any]) -> list[str]:
    """Radius and the like: what a person wants to read in the name of a group."""
    optimizer = config.get("optimizer") or {}
    return [
        f"{key}={format_value(optimizer[key])}"
        for key in ("rho", "every", "only")
        if key in optimizer
    ]


def _digest(config: Mapping[str, Any]) -> str:
    """Six letters for everything that makes the method."""
    settings = sorted(
        f"{key}={format_value(value)}"
        for key, value in flatten(config)
        if not has_prefix(key, BOOKKEEPING)
    )
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()[:6]
