"""Compare two variants at every evaluation: a curve for each seed, and the paired difference.

Reads folders of runs, or the ``NAME.csv`` that it wrote of them. Prints a table of the mean returns
and of their differences, paired by seed, with Student's 95 % interval; writes ``NAME.csv`` and
``NAME.png``.

    python scripts/returns_by_step.py runs/longer/* --pair sam-adam --out longer
    python scripts/returns_by_step.py longer.csv --pair sam-adam --out longer
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from tables_by_seed import parse_pair

from mbrl_flat.analysis.plot_style import MUTED, add_legend, make_panels, method_style, save_figure
from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.logging.jsonl import read_metrics
from mbrl_flat.logging.labels import current_names

METRIC = "eval/return_mean"
Curves = dict[str, dict[int, dict[int, float]]]
"""Return by variant, seed and step."""


def read(source: Path) -> Curves:
    """The curves of a table.

    Args:
        source: A file that ``write`` wrote.

    Returns:
        Returns by variant, seed and step.
    """
    curves: Curves = defaultdict(lambda: defaultdict(dict))
    with source.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves[row["variant"]][int(row["seed"])][int(row["step"])] = float(row["return"])
    return curves


def read_runs(folders: Sequence[Path]) -> Curves:
    """The curves of runs; a run without an evaluation has none."""
    curves: Curves = defaultdict(lambda: defaultdict(dict))
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        names = current_names(config["names"])
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if METRIC in row]
        own = {int(row["step"]): float(row[METRIC]) for row in rows}
        curves[names.get("variant", names["optimizer"])][int(config["seed"])] = own
    return curves


def write(curves: Curves, path: Path) -> None:
    """One row for each evaluation, to a tenth of a reward."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["variant", "seed", "step", "return"])
        for variant, seeds in sorted(curves.items()):
            for seed, curve in sorted(seeds.items()):
                writer.writerows([variant, seed, s, f"{v:.1f}"] for s, v in sorted(curve.items()))


def differences(curves: Curves, pair: tuple[str, str], first: int, last: int) -> np.ndarray:
    """Differences of mean returns, paired by seed.

    Args:
        curves: Returns by variant, seed and step.
        pair: Variant and control.
        first: First step of the evaluations that count.
        last: Last one; seeds count that have it of both.

    Returns:
        ``[seeds]``.
    """

    def middle(curve: dict[int, float]) -> float:
        return float(np.mean([v for step, v in curve.items() if first <= step <= last]))

    one, other = (curves.get(name, {}) for name in pair)
    shared = [s for s in sorted(one.keys() & other.keys()) if last in one[s] and last in other[s]]
    return np.array([middle(one[seed]) - middle(other[seed]) for seed in shared])


def table(curves: Curves, pair: tuple[str, str]) -> str:
    """A row for each step that at least two seeds of both variants have."""
    lines = [f"| step | seeds | `{pair[0]}` | `{pair[1]}` | difference [95 % interval] |"]
    lines.append("|---|---|---|---|---|")
    for step in _steps(curves, pair):
        each = differences(curves, pair, step, step)
        low, middle, high = t_interval(each)
        means = [_mean(curves, name, pair, step) for name in pair]
        cells = [f"{step:,}", f"{len(each)}", *(f"{mean:.0f}" for mean in means)]
        lines.append(f"| {' | '.join(cells)} | {middle:.0f} [{low:.0f}, {high:.0f}] |")
    return "\n".join(lines)


def _steps(curves: Curves, pair: tuple[str, str]) -> list[int]:
    steps = {step for name in pair for curve in curves[name].values() for step in curve}
    return [step for step in sorted(steps) if len(differences(curves, pair, step, step)) > 1]


def _mean(curves: Curves, name: str, pair: tuple[str, str], step: int) -> float:
    """Mean at a step over the seeds that both variants have there."""
    both = [curves[other] for other in pair]
    seeds = [s for s in both[0] if all(step in own.get(s, {}) for own in both)]
    return float(np.mean([curves[name][seed][step] for seed in seeds]))


def draw(curves: Curves, pair: tuple[str, str], path: Path) -> None:
    """Left every seed and the means, right the paired difference with its interval."""
    figure, (left, right) = make_panels(2, columns=2)
    steps = _steps(curves, pair)
    for name in reversed(pair):
        style = method_style(name)
        for curve in curves[name].values():
            left.plot(
                *np.array(sorted(curve.items())).T, color=style.color, alpha=0.3, linewidth=0.8
            )
        means = [_mean(curves, name, pair, step) for step in steps]
        left.plot(steps, means, color=style.color, linewidth=2.4, label=style.name)
    bands = np.array([t_interval(differences(curves, pair, step, step)) for step in steps])
    names = [method_style(name) for name in pair]
    right.axhline(0.0, color=MUTED, linewidth=0.9)
    low, middle, high = bands.T
    right.errorbar(
        steps,
        middle,
        yerr=[middle - low, high - middle],
        fmt="o",
        color=names[0].color,
        capsize=3,
        markersize=4,
    )
    left.set(xlabel="steps", ylabel="episode return")
    right.set(xlabel="steps", ylabel=f"return, {names[0].name} less {names[1].name}")
    add_legend(left)
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, print, write, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("sources", nargs="+", type=Path, help="folders of runs, or one table")
    parser.add_argument("--pair", default="sam-adam", help="VARIANT-CONTROL")
    parser.add_argument("--out", type=Path, required=True, help="files without their endings")
    options = parser.parse_args(arguments)
    first = options.sources[0]
    curves = read(first) if first.suffix == ".csv" else read_runs(options.sources)
    pair = parse_pair(options.pair, [*curves])
    print(table(curves, pair))
    write(curves, options.out.with_suffix(".csv"))
    draw(curves, pair, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
