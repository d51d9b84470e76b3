"""Entry points of the commands: they name the extra to install where its packages are missing."""

import importlib
import sys

from mbrl_flat.errors import MissingExtraError, require_extra


def train() -> int | None:
    """Entry point of ``mbrl-flat-train``."""
    return _launch("mbrl_flat.cli.main", "train")


def evaluate() -> int | None:
    """Entry point of ``mbrl-flat-evaluate``."""
    return _launch("mbrl_flat.cli.main", "evaluate")


def probe() -> int | None:
    """Entry point of ``mbrl-flat-probe``."""
    return _launch("mbrl_flat.cli.main", "probe")


def export() -> int | None:
    """Entry point of ``mbrl-flat-export``."""
    return _launch("mbrl_flat.cli.main", "export")


def supervised() -> int | None:
    """Entry point of ``mbrl-flat-supervised``."""
    return _launch("mbrl_flat.cli.main", "supervised")


def compare() -> int | None:
    """Entry point of ``mbrl-flat-compare``."""
    return _launch("mbrl_flat.compare.main", "main")


def _launch(module: str, name: str) -> int | None:
    """Import the command only when everything that it needs is there.

    Returns:
        Exit status of the command; 2 where an extra is missing.
    """
    try:
        require_extra("train", "hydra", "gymnasium", "matplotlib", "jinja2", "yaml", "tqdm")
        command = getattr(importlib.import_module(module), name)
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return command()
