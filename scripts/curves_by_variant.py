"""Draw each variant of a study in a panel of its own: every seed, and their mean.

All panels of a task share one scale. The thick line is the mean of the curves. Runs of which only
the last values are left (``--last``, a ``seeds.csv``) are dots at the end of the axis. A dashed
line is the mean of the baseline's last values. Writes ``return.png``, ``value_error.png`` and
``sharpness.png``.

    python scripts/curves_by_variant.py docs/studies/study_dmc_cpu/logs/* \
        --last docs/studies/study_dmc_cpu/first_machine.csv --out docs/studies/study_dmc_cpu
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from mbrl_flat.analysis.plot_style import (
    MUTED,
    log_axis,
    make_panels,
    method_style,
    save_figure,
)
from mbrl_flat.logging.jsonl import read_metrics
from mbrl_flat.logging.labels import current_names

FIGURES = {
    "return": ("eval/return_mean", "final_return", "episode return", False),
    "value_error": ("probe/value/rmse_normalised", "value_rmse_normalised", "NRMSE", True),
    "sharpness": ("probe/sharpness/lambda_max", "lambda_max", "Hessian eigenvalue", True),
}
"""File: metric of a log, column of a table, label of the axis, whether it is logarithmic."""
VARIANTS = (
    "adam", "sam_tiny", "adam_twice", "random_direction", "sam", "vasso", "msam", "sam_on", "ivon",
)  # fmt: skip
"""Those of the study on three tasks; the first is the baseline."""
COLUMNS = 5
"""Panels side by side."""
Curve = list[tuple[int, float]]
Runs = dict[str, dict[str, dict[int, Curve]]]
"""Steps and values by task, variant and seed."""


def read(logs: Sequence[Path], table: Path | None, tasks: Sequence[str], name: str) -> Runs:
    """The curves of the logs, and the last values of the runs that have no log."""
    metric, column, _, _ = FIGURES[name]
    runs: Runs = defaultdict(lambda: defaultdict(dict))
    end = 0
    for folder in logs:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        names = current_names(config["names"])
        task = names["task"]
        if task not in tasks:
            continue
        rows = read_metrics(folder / "metrics.jsonl")
        curve = [(int(row["step"]), float(row[metric])) for row in rows if metric in row]
        runs[task][names.get("variant", names["optimizer"])][int(config["seed"])] = curve
        end = max(end, curve[-1][0])
    if table is not None:
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["task"] in tasks:
                    seeds = runs[row["task"]][row["label"]]
                    seeds.setdefault(int(row["seed"]), [(end, float(row[column]))])
    return runs


def draw(runs: Runs, variants: Sequence[str], name: str, path: Path) -> None:
    """One panel for each task and variant; the first variant is the baseline."""
    _, _, label, logarithmic = FIGURES[name]
    rows = -(-len(variants) // COLUMNS)
    figure, panels = make_panels(len(runs) * rows * COLUMNS, columns=COLUMNS)
    figure.set_size_inches(8.8, 1.6 * len(runs) * rows)
    for task, own in zip(runs, np.array_split(np.array(panels, object), len(runs)), strict=True):
        baseline = np.mean([curve[-1][1] for curve in runs[task][variants[0]].values()])
        used, unused = own[: len(variants)], own[len(variants) :]
        for variant, panel in zip(variants, used, strict=True):
            style = method_style(variant)
            panel.set_yscale("log" if logarithmic else "linear")
            panel.margins(y=0.1)
            panel.set_title(style.name, fontsize=9)
            panel.axhline(baseline, color=MUTED, linestyle="--", linewidth=0.9)
            curves = [np.array(curve).T for curve in runs[task][variant].values()]
            for steps, values in curves:
                thin = {"alpha": 0.6, "linewidth": 0.9, "marker": "." if len(steps) == 1 else ""}
                panel.plot(steps, values, color=style.color, **thin)
            longer = [curve for curve in curves if len(curve[0]) > 1]
            if len(longer) > 1:
                mean = np.mean([values for _, values in longer], 0)
                panel.plot(longer[0][0], mean, color=style.color, linewidth=2.4)
        limits = np.array([panel.get_ylim() for panel in used])
        for number, panel in enumerate(used):
            panel.set(ylim=(limits[:, 0].min(), limits[:, 1].max()), xlim=(-300, 6400))
            panel.set_xticks([0, 6000])
            if logarithmic:
                log_axis(panel)
            if number % COLUMNS:
                panel.tick_params(labelleft=False)
            else:
                panel.set_ylabel(f"{task}\n{label}", fontsize=9)
        for panel in unused:
            panel.remove()
    figure.supxlabel("steps", fontsize=9)
    save_figure(figure, path)


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("logs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--last", type=Path, help="seeds.csv of runs without a log")
    parser.add_argument("--tasks", nargs="+", default=["cartpole-swingup", "walker-walk"])
    parser.add_argument(
        "--variants",
        nargs="+",
        default=VARIANTS,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    args = parser.parse_args()
    for name in FIGURES:
        runs = read(args.logs, args.last, args.tasks, name)
        draw(runs, args.variants, name, args.out / f"{name}.png")


if __name__ == "__main__":
    main()
