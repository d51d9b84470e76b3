"""Entry points of the commands; help and version are answered without importing torch."""

import importlib
import sys
from typing import Any

from mbrl_flat.cli.help import answer
from mbrl_flat.runtime.interrupts import interruptible


def train() -> None:
    """Entry point of ``mbrl-flat-train``."""
    _start("train")


def evaluate() -> None:
    """Entry point of ``mbrl-flat-evaluate``."""
    _start("evaluate")


def probe() -> None:
    """Entry point of ``mbrl-flat-probe``."""
    _start("probe")


def export() -> None:
    """Entry point of ``mbrl-flat-export``."""
    _start("export")


def supervised() -> None:
    """Entry point of ``mbrl-flat-supervised``."""
    _start("supervised")


def compose_run(*overrides: str) -> Any:
    """Configuration and parts of a run of ``mbrl-flat-train`` with these arguments, for scripts."""
    return importlib.import_module("mbrl_flat.cli.commands").compose_run(*overrides)


def compose_study(*overrides: str) -> Any:
    """The study of ``mbrl-flat-supervised`` with these arguments, for scripts."""
    return importlib.import_module("mbrl_flat.cli.commands").compose_study(*overrides)


def _start(command: str) -> None:
    if answer(command, sys.argv[1:]):
        return
    with interruptible():
        commands = importlib.import_module("mbrl_flat.cli.commands")
    getattr(commands, command)()
