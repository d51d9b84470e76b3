"""Draw docs/assets/hero.png: sharpness and prediction errors of each method relative to Adam.

    python scripts/site/hero.py

Reads the test rows of docs/studies/world_model_offline/results.csv. Ratios are taken seed by seed
against Adam with as many gradient evaluations; shown are the five seeds, their geometric mean and
Student's 95 % interval of the logarithms.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from mbrl_flat.analysis.plot_style import INK, make_panels, method_style, save_figure
from mbrl_flat.analysis.stats import t_quantile

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "docs" / "studies" / "world_model_offline" / "results.csv"
OUT = ROOT / "docs" / "assets" / "hero.png"
METHODS = ("sam", "vasso", "msam", "sam_on", "random_direction")
MODELS = {"tdmpc2": "TD-MPC2", "transformer": "transformer"}
MEASURES = {
    "train_lambda_max": "largest Hessian eigenvalue",
    "state_error_1": "error one step ahead",
    "state_error_last": "error ten steps ahead",
}


AXES = {
    "sharpness": ((0.065, 1.6), (0.1, 0.2, 0.5, 1.0)),
    "error": ((0.925, 1.13), (0.95, 1.0, 1.05, 1.1)),
}
"""Ends and ticks of the axis of a ratio."""


def read() -> dict[tuple[str, str, str], dict[int, float]]:
    """Values by model, method and measure: one for each seed."""
    values: dict[tuple[str, str, str], dict[int, float]] = {}
    with ROWS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["part"] == "test":
                for measure in MEASURES:
                    key = (row["model"], row["method"], measure)
                    values.setdefault(key, {})[int(row["seed"])] = float(row[measure])
    return values


def ratios(
    values: dict[tuple[str, str, str], dict[int, float]], model: str, method: str, measure: str
) -> np.ndarray:
    """Value of each seed over that of Adam at equal gradient evaluations."""
    ours, adam = values[model, method, measure], values[model, "adam_matched", measure]
    return np.array([ours[seed] / adam[seed] for seed in sorted(ours)])


def draw_row(axes: Axes, place: float, ratio: np.ndarray, color: str) -> None:
    """Draw seeds, mean and interval of one method."""
    logs = np.log(ratio)
    half = t_quantile(len(logs) - 1, confidence=0.95) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, mean, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    axes.plot(ratio, np.full(len(ratio), place - 0.24), ".", color=color, alpha=0.45, markersize=4)
    axes.plot([low, high], [place, place], color=color, linewidth=2.4, solid_capstyle="butt")
    axes.plot([mean], [place], "o", color=color, markersize=6.5)


def style(axes: Axes, places: Sequence[float], names: Sequence[str], measure: str) -> None:
    """Label a panel; ratios have a logarithmic axis."""
    limits, ticks = AXES["error" if measure.startswith("state") else "sharpness"]
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.axvline(1.0, color=INK, linewidth=1.0)
    axes.set_yticks(list(places), list(names))
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(-0.6, max(places) + 0.7)


def main() -> None:
    """Draw the figure."""
    values = read()
    figure, panels = make_panels(6, columns=3)
    figure.set_size_inches(10.6, 5.2)
    figure.suptitle(
        "Relative to Adam with as many gradient evaluations (five seeds, 95 % intervals)",
        fontsize=12,
        color=INK,
    )
    places = list(range(len(METHODS)))[::-1]
    names = [method_style(method).name for method in METHODS]
    for row, (model, title) in enumerate(MODELS.items()):
        for column, (measure, label) in enumerate(MEASURES.items()):
            axes = panels[3 * row + column]
            for place, method in zip(places, METHODS, strict=True):
                ratio = ratios(values, model, method, measure)
                draw_row(axes, place, ratio, method_style(method).color)
            style(axes, places, names if column == 0 else [""] * len(names), measure)
            axes.set_title(f"{title}: {label}", fontsize=10, color=INK, loc="left")
            if row == 1:
                words = ("flatter", "sharper") if column == 0 else ("better", "worse")
                axes.set_xlabel(f"{words[0]} than Adam  |  {words[1]}")
    save_figure(figure, OUT)


if __name__ == "__main__":
    main()
