"""Write docs/reference/configuration.md from the dataclasses that hold the keys of a run.

    python scripts/site/configuration.py

Types and defaults are the dataclasses' own, meanings come from the ``Attributes`` of their
docstrings. A test holds the page to what this writes.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.dreamerv3.config import DreamerV3Config
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.planning.mppi import MPPIConfig
from mbrl_flat.runs.config import RunConfig, WandbConfig
from mbrl_flat.training.energy_sampler import SelectionConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "configuration.md"
HEAD = """\
# Configuration keys

Written by `python scripts/site/configuration.py`; do not edit by hand.

Set a key on the command line: `mbrl-flat-train steps=200_000 agent.config.horizon=5`. The tables
show the defaults of the classes. A preset, an experiment or an agent's size may set others;
`config.yaml` in the run's folder has what was used. Optimizers list their settings on
[their pages](../optimizers/README.md), probes on [theirs](../diagnostics/README.md).
"""
SECTIONS: Mapping[str, tuple[str, type]] = {
    "A run": ("", RunConfig),
    "Replay": ("replay.", SelectionConfig),
    "Weights & Biases": ("wandb.", WandbConfig),
    "TD-MPC2": ("agent.config.", TDMPC2Config),
    "TD-MPC2: planner": ("agent.config.planner.", MPPIConfig),
    "DreamerV3": ("agent.config.", DreamerV3Config),
    "STORM": ("agent.config.", STORMConfig),
    "TWISTER": ("agent.config.", TWISTERConfig),
    "DreamerV3, STORM, TWISTER: imagination": ("agent.config.imagination.", ImaginationConfig),
    "DreamerV3, STORM, TWISTER: actor and critic": (
        "agent.config.actor_critic.",
        ActorCriticConfig,
    ),
}
_GROUPS = {"agent", "env", "optimizer", "probes", "names", "replay", "wandb"}
_ENTRY = re.compile(r"^(\w+): (.*(?:\n +.*)*)", re.MULTILINE)


def page() -> str:
    """The whole page."""
    tables = [_table(title, prefix, kind) for title, (prefix, kind) in SECTIONS.items()]
    return "\n".join([HEAD, *tables, _environments()])


def _table(title: str, prefix: str, kind: type) -> str:
    meanings = _meanings(kind)
    rows = [
        f"| `{prefix}{field.name}` | `{_default(field)}` | {meanings.get(field.name, '')} |"
        for field in dataclasses.fields(kind)
        if not (kind is RunConfig and field.name in _GROUPS)
    ]
    return "\n".join([f"## {title}", "| key | default | meaning |", "|---|---|---|", *rows, ""])


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if dataclasses.is_dataclass(value):
        return "see below"
    return _yaml(value)


def _meanings(kind: type) -> dict[str, str]:
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = _ENTRY.findall(inspect.cleandoc(text))
    return {
        name: " ".join(words.split()).replace("``", "`").replace("|", "\\|")
        for name, words in entries
    }


def _environments() -> str:
    lines = ["## Environments", "| env | key | default | meaning |", "|---|---|---|---|"]
    for file in sorted((ROOT / "configs" / "env").glob("*.yaml")):
        text = file.read_text("utf-8")
        comments = dict(re.findall(r"^(\w+):[^#\n]*#\s*(.*)$", text, re.MULTILINE))
        for key, value in yaml.safe_load(text).items():
            if not key.startswith("_") and not isinstance(value, dict):
                lines.append(
                    f"| `{file.stem}` | `env.{key}` | `{_yaml(value)}` | {comments.get(key, '')} |"
                )
    return "\n".join([*lines, ""])


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
