"""Draw the figures of runs again: ``python scripts/plot.py runs/NAME ...``."""

import argparse
import sys
from pathlib import Path

from mbrl_flat.errors import UserError
from mbrl_flat.runs.plots import draw_run


def main() -> int:
    """Draw each run; say which figures were written."""
    parser = argparse.ArgumentParser(description="Draw the figures of runs.")
    parser.add_argument("run", nargs="+", type=Path, help="folder of a run")
    try:
        for folder in parser.parse_args().run:
            for figure in draw_run(folder):
                print(figure)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
