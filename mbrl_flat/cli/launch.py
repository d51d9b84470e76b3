"""Entry points of the commands: they name the extra to install where its packages are missing."""

import importlib
import os
import sys
from functools import partial
from pathlib import Path

from mbrl_flat.errors import MissingExtraError, require_extra

_FIRST_FREE = 3
"""The first number of a file that is none of the standard streams."""


def _open_streams() -> None:
    """Let standard streams that are closed lead nowhere; else the next file takes their number."""
    while (number := os.open(os.devnull, os.O_RDWR)) < _FIRST_FREE:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def _launch(module: str, name: str) -> int | None:
    """Import the command only when everything that it needs is there.

    Returns:
        Exit status of the command; 2 where an extra is missing.
    """
    _open_streams()
    os.environ["MPLBACKEND"] = "agg"  # Figures go to files; what is set may not be installed.
    try:
        require_extra("train", "hydra", "gymnasium", "matplotlib", "jinja2", "yaml", "tqdm")
        command = getattr(importlib.import_module(module), name)
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return command()


train = partial(_launch, "mbrl_flat.cli.main", "train")
evaluate = partial(_launch, "mbrl_flat.cli.main", "evaluate")
probe = partial(_launch, "mbrl_flat.cli.main", "probe")
export = partial(_launch, "mbrl_flat.cli.main", "export")
supervised = partial(_launch, "mbrl_flat.cli.main", "supervised")
compare = partial(_launch, "mbrl_flat.compare.main", "main")
