"""``--help`` and ``--version``: what a command does, examples, and what it chooses from."""

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import mbrl_flat.configs
from mbrl_flat.runtime.versions import version_line

_WHAT = {
    "train": "Train a model-based agent; every run has a folder and can be resumed exactly.",
    "evaluate": "Play episodes with the agent of a run, or of a published checkpoint.",
    "probe": "Measure the agent of a run: sharpness, value error, rollout error, loss landscape.",
    "export": "Write the policy or the planner of a run as a program that needs no mbrl_flat.",
    "supervised": "Run a study of a paper's claims; every study can be resumed.",
}
EXAMPLES = {
    "train": (
        ("env.task=walker-walk optimizer=sam optimizer.rho=0.01 preset=cpu", "SAM, small model"),
        ("experiment=first_run", "a first run of minutes on a laptop"),
        ("env=gym env.task=Pendulum-v1 preset=cpu", "any Gymnasium environment"),
        ("resume=runs/NAME", "resume exactly where the run stopped"),
        ("-m +variant=adam,sam seed=1,2,3 hydra/launcher=joblib", "a sweep, one run a core"),
    ),
    "evaluate": (
        ("run=runs/NAME", "ten episodes of the latest checkpoint"),
        ("run=runs/NAME episodes=50 seed=7", "50 episodes, with seeds of their own"),
        ("run=runs/NAME checkpoint=best video=true", "record the first episode"),
        ("pretrained=walker-stand video=true", "a pretrained agent that comes with mbrl_flat"),
        ("checkpoint=FILE env.task=dog-run agent.config.size=5", "an official TD-MPC2 checkpoint"),
    ),
    "probe": (
        ("run=runs/NAME", "sharpness of the world-model loss"),
        ("run=runs/NAME probe=value_error episodes=20", "bias and error of the value function"),
        ("run=runs/NAME probe=rollout_error probe.horizon=15", "errors of imagined rollouts"),
        ("run=runs/NAME probe=landscape probe.points=41", "the loss along two directions"),
        ("run=runs/NAME probe=sharpness_full", "every sharpness measure, per module"),
    ),
    "export": (
        ("run=runs/NAME", "policy.pt2, and planner.pt2 of TD-MPC2, in runs/NAME/export"),
        ("run=runs/NAME --format onnx", "policy.onnx and planner.onnx"),
        ("run=runs/NAME checkpoint=best out=robot", "the best weights, in another folder"),
        ("run=runs/NAME dtype=bfloat16", "the planner computes values in bfloat16"),
        ("run=runs/NAME rows=4", "for four observations at once"),
    ),
    "supervised": (
        ("experiment=label_noise preset=ci", "the smallest version of a study, in seconds"),
        ("experiment=eos_minimal", "the edge of stability in two dimensions"),
        ("experiment=sam_on run_dir=runs/sam_on", "choose the folder"),
        ("resume=runs/NAME", "resume a study that was stopped"),
        ("-m experiment=vasso,momentum_sam hydra/launcher=joblib", "several studies at once"),
    ),
}
GROUPS = {
    "train": (
        "agent",
        "env",
        "optimizer",
        "optimizer/base",
        "preset",
        "sizes",
        "benchmark",
        "experiment",
        "schedule",
    ),
    "evaluate": ("agent", "env"),
    "probe": ("probe",),
    "export": (),
    "supervised": ("experiment", "preset"),
}
"""What each command chooses from."""

_KEYS = {
    "train": "docs/reference/configuration.md and mbrl_flat/runs/config.py",
    "evaluate": "mbrl_flat/cli/schemas.py",
    "probe": "mbrl_flat/cli/schemas.py",
    "export": "mbrl_flat/cli/schemas.py",
    "supervised": "mbrl_flat/studies/command.py",
}
_RUN_PRESETS = ("cpu", "debug", "default")
_SWEEPS = ("train", "supervised")
_FLAGS = (
    ("--cfg job", "print the configuration and do nothing else"),
    ("--config-dir DIR", "add a folder of configurations of your own"),
    ("-m, --multirun", "a sweep: one run for each combination of the values given"),
    ("--shell-completion install=bash", 'completion: eval "$(COMMAND -sc install=bash)"'),
    ("--hydra-help", "the flags of Hydra, which composes the configuration"),
    ("--version", "print the versions of mbrl_flat, Python and torch"),
)


def answer(command: str, words: Sequence[str]) -> bool:
    """Print help or the version if the command line asks for it.

    Args:
        command: ``train``, ``evaluate``, ``probe``, ``export`` or ``supervised``.
        words: What follows the command's name.

    Returns:
        Whether it was asked for; then nothing else is to be done.
    """
    if "--version" in words:
        sys.stdout.write(f"{version_line()}\n")
    elif "--help" in words or "-h" in words:
        sys.stdout.write(help_text(command))
    else:
        return False
    return True


def help_text(command: str) -> str:
    """The help of a command."""
    name = f"mbrl-flat-{command}"
    lines = [f"usage: {name} [KEY=VALUE ...] [FLAG ...]", "", _WHAT[command], "", "examples:"]
    for words, remark in EXAMPLES[command]:
        lines += [f"  {name} {words}", f"      {remark}"]
    groups = [group for group in GROUPS[command] if group not in ("sizes", "schedule")]
    groups += ["+variant"] if command == "train" else []
    lines += ["", "choose by GROUP=NAME:"] if groups else []
    for group in groups:
        lines += _wrapped(f"  {group:15}", _choices(group, command))
    flags = [flag for flag in _FLAGS if command in _SWEEPS or not flag[0].startswith("-m")]
    lines += [
        "",
        f"settings: KEY=VALUE, described in {_KEYS[command]};",
        "--cfg job prints them with their values.",
        "`+KEY=VALUE` adds a key that a part takes, `~KEY` removes one, `KEY=[a,b]` is a list.",
        "",
        "flags:",
        *(f"  {flag:32}{remark}" for flag, remark in flags),
    ]
    return "\n".join(lines).replace("COMMAND", name) + "\n"


def _choices(group: str, command: str) -> list[str]:
    folder = Path(mbrl_flat.configs.__path__[0]) / group.removeprefix("+")
    files = sorted(folder.glob("*.yaml"))
    if group == "experiment":
        study = command == "supervised"
        files = [file for file in files if ("\nstudy:" in file.read_text("utf-8")) == study]
    elif group == "preset":
        study = command == "supervised"
        files = [file for file in files if (file.stem not in _RUN_PRESETS) == study]
        files += [folder / "default.yaml"] if study else []
    plugins = [point.name for point in entry_points(group=f"mbrl_flat.{group}s")]
    return [file.stem for file in files] + (plugins if group != "optimizer" else [])


def _wrapped(head: str, words: Sequence[str], width: int = 100) -> list[str]:
    lines = [head]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append(" " * len(head))
        lines[-1] += f" {word}"
    return lines
