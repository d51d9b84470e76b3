"""Entry points of the commands: they name the extra to install where its packages are missing."""

import importlib
import sys
from functools import partial

from mbrl_flat.errors import MissingExtraError, require_extra


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


train = partial(_launch, "mbrl_flat.cli.main", "train")
evaluate = partial(_launch, "mbrl_flat.cli.main", "evaluate")
probe = partial(_launch, "mbrl_flat.cli.main", "probe")
export = partial(_launch, "mbrl_flat.cli.main", "export")
supervised = partial(_launch, "mbrl_flat.cli.main", "supervised")
compare = partial(_launch, "mbrl_flat.compare.main", "main")
