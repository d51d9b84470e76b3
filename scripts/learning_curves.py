"""Draw what runs earned while they learned: each seed and the mean, one colour for each agent.

Unlike ``mbrl-flat-compare``, which matches evaluations, this takes the returns of the episodes that
were learned from, exploration and all (of runs that log none, their evaluations): nothing extra
has to be played. Writes ``NAME.svg`` and ``NAME.csv``; a table that it wrote is drawn again as
well, without the runs.

    python scripts/learning_curves.py runs/dreamerv3_* runs/dqn_* --random 0.37 --out curves
    python scripts/learning_curves.py curves.csv --random 0.37 --out curves
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from mbrl_flat.analysis.plot_style import MUTED, PALETTE, add_legend, make_panels, save_figure
from mbrl_flat.logging.jsonl import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = dict[str, dict[int, dict[int, float]]]
"""Return by agent, seed and the last step of an interval."""
Point = tuple[int, float, float, float, int]
"""Step, mean, lowest and highest return, and number of seeds."""
Tables = dict[str, list[Point]]
"""Points by agent."""
NAMES = {"dreamerv3": "DreamerV3", "storm": "STORM", "twister": "TWISTER", "dqn": "DQN"}


def read(folders: list[Path], interval: int) -> Curves:
    """Mean return of each run over intervals of ``interval`` steps."""
    curves: Curves = defaultdict(dict)
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        rows = read_metrics(folder / "metrics.jsonl")
        trained = any("episode/return" in row for row in rows)
        name = "episode/return" if trained else "eval/return_mean"
        parts: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            if name in row:
                parts[-(-int(row["step"]) // interval) * interval].append(row[name])
        means = {step: float(np.mean(values)) for step, values in sorted(parts.items())}
        curves[config["names"]["agent"]][int(config["seed"])] = means
    return curves


def over_seeds(seeds: dict[int, dict[int, float]]) -> list[Point]:
    """One point for each step, of the seeds that got so far."""
    steps = sorted({step for curve in seeds.values() for step in curve})
    table = []
    for step in steps:
        values = [curve[step] for curve in seeds.values() if step in curve]
        table.append((step, float(np.mean(values)), min(values), max(values), len(values)))
    return table


def read_table(path: Path) -> Tables:
    """A table that this script wrote."""
    tables: Tables = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            mean, low, high = (float(row[name]) for name in ("mean", "lowest", "highest"))
            tables[row["agent"]].append((int(row["step"]), mean, low, high, int(row["seeds"])))
    return tables


def draw(panel: "Axes", agent: str, rows: list[Point], color: str, shift: float) -> None:
    """The mean as a line; up to three seeds as dots beside it, more as their range."""
    steps, mean, low, high, count = (np.array(column) for column in zip(*rows, strict=True))
    label = f"{NAMES.get(agent, agent)}, {max(count)} seed(s)"
    panel.plot(steps, mean, color=color, label=label)
    if max(count) <= 3:
        middle = np.where(count == 3, 3.0 * mean - low - high, mean)
        for values in (low, middle, high):
            panel.plot(steps + shift, values, ".", color=color, alpha=0.55, markersize=5)
    else:
        panel.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or one table")
    parser.add_argument("--interval", type=int, default=500, help="steps that make a point")
    parser.add_argument("--random", type=float, help="return of random actions")
    parser.add_argument("--out", type=Path, required=True, help="figures and table, no ending")
    args = parser.parse_args()
    if args.runs[0].suffix == ".csv":
        tables = read_table(args.runs[0])
    else:
        curves = read(args.runs, args.interval)
        tables = {agent: over_seeds(seeds) for agent, seeds in curves.items()}
    figure, (panel,) = make_panels(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["agent", "step", "mean", "lowest", "highest", "seeds"])
        for number, (agent, rows) in enumerate(tables.items()):
            table.writerows(
                (agent, row[0], *(f"{x:.3f}" for x in row[1:4]), row[4]) for row in rows
            )
            shift = 0.12 * args.interval * (number - (len(tables) - 1) / 2)
            draw(panel, agent, rows, PALETTE[number % len(PALETTE)], shift)
    if args.random is not None:
        panel.axhline(args.random, color=MUTED, linestyle="--", label="random")
    panel.set(xlabel="steps = frames", ylabel="episode return")
    add_legend(panel)
    save_figure(figure, args.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
