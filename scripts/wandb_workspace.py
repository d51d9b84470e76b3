"""Make the project's comparison workspace at Weights & Biases, or print it.

python scripts/wandb_workspace.py --print                      # no connection, no account
python scripts/wandb_workspace.py --entity ME --project mbrl_flat
"""

import argparse
import sys

from mbrl_flat.errors import UserError
from mbrl_flat.logging.wandb_workspace import build_workspace, describe


def main() -> int:
    """Build the workspace; print it or save it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entity", help="account or team that owns the project")
    parser.add_argument("--project", default="mbrl_flat")
    parser.add_argument("--name", default="Comparison of optimizers", help="title")
    parser.add_argument("--print", action="store_true", dest="show", help="send nothing")
    arguments = parser.parse_args()
    if arguments.entity is None and not arguments.show:
        parser.error("say whose project it is by --entity, or --print it")
    try:
        workspace = build_workspace(
            entity=arguments.entity or "entity", project=arguments.project, name=arguments.name
        )
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.show:
        print(describe(workspace))
    else:
        print(workspace.save().url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
