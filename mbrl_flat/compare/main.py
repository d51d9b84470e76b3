"""``mbrl-flat-compare runs/A runs/B ... --out report``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.columns import FINAL_SHARE
from mbrl_flat.compare.comparison import STATISTICS, RunComparison, compare_runs
from mbrl_flat.compare.figures import FIGURE_NAMES, draw_figures
from mbrl_flat.compare.page import render_page
from mbrl_flat.compare.runs import find_runs, load_run
from mbrl_flat.compare.tables import to_csv, to_csv_by_seed, to_markdown
from mbrl_flat.compare.terminal import to_text
from mbrl_flat.errors import UserError, printable
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.interrupts import interruptible
from mbrl_flat.runtime.parallel import map_in_processes
from mbrl_flat.runtime.versions import version_line

_RUNS_PER_PROCESS = 20
_EXAMPLES = """\
examples:
  mbrl-flat-compare runs
      all runs of a folder, in report/index.html
  mbrl-flat-compare runs/A runs/B --out report_ab
      two runs
  mbrl-flat-compare runs --by optimizer,optimizer.rho
      one group for each optimizer and radius
  mbrl-flat-compare runs --x evaluations --baseline adam_twice
      at equal gradient evaluations, against another baseline
  mbrl-flat-compare runs --x frames --reference tdmpc2
      with published scores
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write a report; print an error message if it cannot be written.

    Args:
        argv: Arguments after the command's name; those of the process unless given.

    Returns:
        Exit status: 0, or 2 for what the user can correct.
    """
    arguments = _parser().parse_intermixed_args(argv)
    with interruptible():
        return _compare(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    try:
        comparison = compare_runs(
            map_in_processes(load_run, find_runs(arguments.runs), share=_RUNS_PER_PROCESS),
            baseline=arguments.baseline,
            axis=arguments.x,
            statistic=arguments.statistic,
            references=arguments.reference,
            by=[key for text in arguments.by for key in text.split(",")],
            expert=arguments.expert,
            last=arguments.last,
        )
        written = write_report(comparison, arguments.out, title=arguments.title)
    except UserError as error:
        sys.stderr.write(f"{printable(error)}\n")
        return 2
    table = to_text(comparison.rows, statistic=comparison.statistic)
    files = "".join(f"  {printable(path)}\n" for path in written)
    _print(f"{table}\nfiles (open {written[0].name} first; table.md has all columns)\n{files}")
    return 0


def write_report(comparison: RunComparison, folder: Path, *, title: str) -> list[Path]:
    """Write page, tables and figures; files of an earlier report are replaced.

    Args:
        comparison: What is reported.
        folder: Where to; made if it is absent.
        title: Heading of the page.

    Returns:
        The files written.

    Raises:
        UserError: If the folder is that of a run, or cannot be written.
    """
    texts = {
        "index.html": render_page(comparison, title=title),
        "table.csv": to_csv(comparison.rows),
        "seeds.csv": to_csv_by_seed(comparison.rows),
        "table.md": to_markdown(comparison.rows),
    }
    try:
        if (folder / "config.yaml").exists():
            raise UserError(f"{folder} is the folder of a run; choose another one by --out.")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text_atomically(folder / name, text)
        figures = draw_figures(comparison, folder)
        for name in FIGURE_NAMES:
            if (figure := folder / name) not in figures:
                figure.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write the report to {folder}: {error.strerror}.") from error
    return [*(folder / name for name in texts), *figures]


def _print(text: str) -> None:
    """Print; that a pager or ``head`` has seen enough is no error, for the report is written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it leaves, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Prints the error message alone, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        text = printable(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")
        sys.stderr.write(f"{text}\n")
        sys.exit(2)


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a folder")
    return Path(_expanded(text))


def _expanded(text: str) -> str:
    """A path without the ``~`` and variables that a shell leaves after ``=`` or in quotes."""
    return os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mbrl-flat-compare",
        description="Compare runs in one page, one table and figures.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line())
    parser.add_argument(
        "runs",
        nargs="+",
        type=_expanded,
        metavar="RUN",
        help="folder of a run, folder of runs, or a glob",
    )
    parser.add_argument("--out", type=_path, default=Path("report"), help="folder of the report")
    parser.add_argument("--title", default="Comparison of runs", help="heading of the page")
    parser.add_argument(
        "--baseline", help="optimizer or group that the others are compared with (default: adam)"
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="KEY",
        help="settings that alone tell groups apart, such as optimizer,optimizer.rho or agent",
    )
    parser.add_argument(
        "--x",
        choices=tuple(AXES),
        default="steps",
        help="unit of the x axis, in which returns are matched (default: steps)",
    )
    parser.add_argument(
        "--statistic",
        choices=tuple(STATISTICS),
        default="mean",
        help="how seeds are put together in the table",
    )
    parser.add_argument(
        "--last",
        type=float,
        default=FINAL_SHARE,
        metavar="SHARE",
        help="how much of a run, from its end, final values are means over (default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="METHOD",
        help="overlay published scores, such as tdmpc2; may be given several times",
    )
    parser.add_argument(
        "--expert",
        metavar="METHOD",
        help="normalise scores by this method's published ones (default: human, or return / 1000)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
