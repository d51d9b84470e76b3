"""Entry points of the commands; help and version are answered without importing torch."""

import importlib
import sys
from functools import partial
from typing import Any

from mbrl_flat.cli.help import answer
from mbrl_flat.runtime.interrupts import interruptible


def _start(command: str) -> None:
    if answer(command, sys.argv[1:]):
        return
    with interruptible():
        commands = importlib.import_module("mbrl_flat.cli.commands")
    getattr(commands, command)()


train = partial(_start, "train")
evaluate = partial(_start, "evaluate")
probe = partial(_start, "probe")
export = partial(_start, "export")
supervised = partial(_start, "supervised")


def compose_run(*overrides: str) -> Any:
    """Configuration and parts of a run of ``mbrl-flat-train`` with these arguments, for scripts."""
    return importlib.import_module("mbrl_flat.cli.commands").compose_run(*overrides)


def compose_study(*overrides: str) -> Any:
    """The study of ``mbrl-flat-supervised`` with these arguments, for scripts."""
    return importlib.import_module("mbrl_flat.cli.commands").compose_study(*overrides)
