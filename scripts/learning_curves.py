"""Draw what runs earned while they learned: mean and range over seeds, one colour for each agent.

Unlike ``mbrl-flat-compare``, which matches evaluations, this takes the returns of the episodes that
were learned from, exploration and all (of runs that log none, their evaluations): nothing extra
has to be played. Writes ``NAME.svg`` and ``NAME.csv``.

    python scripts/learning_curves.py runs/dreamerv3_* runs/dqn_* --random 0.37 --out curves
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml

from mbrl_flat.analysis.plot_style import MUTED, PALETTE, add_legend, make_panels, save_figure
from mbrl_flat.logging.jsonl import read_metrics

Curves = dict[str, dict[int, dict[int, float]]]
"""Return by agent, seed and the last step of an interval."""


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


def over_seeds(seeds: dict[int, dict[int, float]]) -> list[tuple[int, float, float, float, int]]:
    """Step, mean, lowest, highest and number of the seeds that got so far."""
    steps = sorted({step for curve in seeds.values() for step in curve})
    table = []
    for step in steps:
        values = [curve[step] for curve in seeds.values() if step in curve]
        table.append((step, float(np.mean(values)), min(values), max(values), len(values)))
    return table


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--interval", type=int, default=500, help="steps that make a point")
    parser.add_argument("--random", type=float, help="return of random actions")
    parser.add_argument("--out", type=Path, required=True, help="figures and table, no ending")
    args = parser.parse_args()
    figure, (panel,) = make_panels(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["agent", "step", "mean", "lowest", "highest", "seeds"])
        for colour, (agent, seeds) in zip(PALETTE, read(args.runs, args.interval).items()):  # noqa: B905
            rows = over_seeds(seeds)
            table.writerows(
                (agent, row[0], *(f"{x:.3f}" for x in row[1:4]), row[4]) for row in rows
            )
            steps, mean, low, high, _ = (np.array(column) for column in zip(*rows, strict=True))
            panel.plot(steps, mean, color=colour, label=f"{agent}, {len(seeds)} seed(s)")
            panel.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    if args.random is not None:
        panel.axhline(args.random, color=MUTED, linestyle="--", label="random")
    panel.set(xlabel="steps = frames", ylabel="return")
    add_legend(panel)
    save_figure(figure, args.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
