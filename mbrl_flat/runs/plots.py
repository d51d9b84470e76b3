"""Figures of one run, drawn from its ``metrics.jsonl`` and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import (
    MUTED,
    PALETTE,
    add_legend,
    log_axis,
    make_panels,
    save_figure,
    spans_orders,
)
from mbrl_flat.logging.jsonl import read_metrics

Rows = Sequence[Mapping[str, float]]
Panels = Sequence[tuple[Mapping[str, str], str]]
"""The panels of a figure: metrics by their name in the legend, and what the y axis shows."""

_MAX_LOSSES = 12
_VALUE_ERROR: Panels = (
    ({"bias": "probe/value/bias", "RMSE": "probe/value/rmse"}, "error of V, units of return"),
    ({"NRMSE": "probe/value/rmse_normalised"}, "normalised RMSE of V"),
    ({"Spearman": "probe/value/spearman"}, "rank correlation of V and return"),
    ({"planner's bias": "probe/planner/bias"}, "bias of the planner, units of return"),
)
_BOUND_PARTS = {
    "training loss": "probe/bound/loss_empirical",
    "sharpness": "probe/bound/loss_sharpness",
    "complexity": "probe/bound/loss_complexity",
}
_BOUNDS: Panels = (
    (
        {"bound": "probe/bound/value_total", "measured": "probe/bound/value_gap"},
        "value gap, units of return",
    ),
    (
        {"bound": "probe/bound/loss_total", "held-out loss": "probe/bound/loss_heldout"},
        "world-model loss",
    ),
    (_BOUND_PARTS, "terms of the bound of the loss"),
)
"""Each bound in one panel with what it bounds."""


def series(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pick one metric out of rows that do not all have it.

    Args:
        rows: What ``read_metrics`` gave.
        name: Name of the metric, such as ``episode/return``.

    Returns:
        Steps ``[N]`` and finite values ``[N]``, both float64, in the order of the rows.
    """
    points = [(row["step"], row[name]) for row in rows if name in row]
    table = np.array(points, np.float64).reshape(-1, 2)
    table = table[np.isfinite(table[:, 1])]
    return table[:, 0], table[:, 1]


def draw_run(folder: Path) -> list[Path]:
    """Draw what was measured in a run; a figure without metrics is left out.

    Args:
        folder: The run's folder, with ``metrics.jsonl``.

    Returns:
        The figures written below ``folder/plots``.

    Raises:
        UserError: If the metrics cannot be read.
    """
    rows, title = read_metrics(folder / "metrics.jsonl"), folder.name
    figures = {
        "return": _draw_return(rows, title),
        "value_error": _draw_panels(rows, _VALUE_ERROR, title),
        "sharpness": _draw_panels(rows, _sharpness(rows), title),
        "bounds": _draw_panels(rows, _BOUNDS, title),
        "losses": _draw_panels(rows, _losses(rows), title, columns=3),
    }
    return [
        save_figure(figure, folder / "plots" / f"{name}.png")
        for name, figure in figures.items()
        if figure is not None
    ]


def _draw_return(rows: Rows, title: str) -> Figure | None:
    steps, mean = series(rows, "eval/return_mean")
    episode_steps, episode = series(rows, "episode/return")
    if len(steps) == 0 and len(episode_steps) == 0:
        return None
    figure, (axes,) = make_panels(1, title=title)
    if len(episode_steps) > 0:
        axes.plot(episode_steps, episode, color="#BBBBBB", linewidth=1, label="training episodes")
    if len(steps) > 0:
        std = _std_at(rows, steps)
        axes.fill_between(steps, mean - std, mean + std, color=PALETTE[0], alpha=0.18, linewidth=0)
        _plot(axes, steps, mean, color=PALETTE[0], label="evaluation, mean and std of episodes")
    _, random_returns = series(rows, "eval/random_return_mean")
    if len(random_returns) > 0:
        axes.axhline(
            float(random_returns.mean()),
            color=MUTED,
            linestyle="--",
            linewidth=1.2,
            label="random policy",
        )
    _label(axes, rows, "episode return")
    return figure


def _std_at(rows: Rows, steps: np.ndarray) -> np.ndarray:
    """Spread of the evaluation at each of ``steps``; zero where it was not written."""
    std = dict(zip(*series(rows, "eval/return_std"), strict=True))
    return np.array([std.get(step, 0.0) for step in steps])


def _sharpness(rows: Rows) -> Panels:
    prefix = "probe/sharpness/"
    curvature = {"whole model": prefix + "lambda_max"} | _per_module(rows, "lambda_max")
    gap = {"whole model": prefix + "sam_gap"} | _per_module(rows, "sam_gap")
    norms = {"weights": prefix + "param_norm", "gradient": prefix + "grad_norm"}
    return (
        (curvature, "largest eigenvalue of the Hessian"),
        (gap, "SAM gap, L(w + e) - L(w)"),
        ({"trace": prefix + "trace"}, "trace of the Hessian"),
        (norms, "Euclidean norm"),
        ({"during training": "optim/perturbed_gap"}, "perturbed gap, L(w + e) - L(w)"),
    )


def _per_module(rows: Rows, quantity: str) -> dict[str, str]:
    """Metric names by module, for ``probe/sharpness/<module>/<quantity>``."""
    names = sorted({name for row in rows for name in row if name.startswith("probe/sharpness/")})
    ending = f"/{quantity}"
    return {
        name.split("/")[2]: name for name in names if name.endswith(ending) and name.count("/") == 3
    }


def _losses(rows: Rows) -> Panels:
    names = {name for row in rows for name in row if name.startswith("train/")}
    names.discard("train/updates")
    # The total first, then the other losses, then whatever else the agent reports.
    order = sorted(names, key=lambda n: (n != "train/total_loss", not n.endswith("loss"), n))
    return [
        ({"": name}, name.removeprefix("train/").replace("_", " ")) for name in order[:_MAX_LOSSES]
    ]


def _draw_panels(rows: Rows, panels: Panels, title: str, *, columns: int = 2) -> Figure | None:
    """Draw one panel for each group of metrics that has a value."""
    present = [
        (curves, label)
        for curves, label in panels
        if any(len(series(rows, name)[0]) > 0 for name in curves.values())
    ]
    if not present:
        return None
    figure, all_axes = make_panels(len(present), columns=columns, title=title)
    for axes, (curves, label) in zip(all_axes, present, strict=True):
        for index, (legend, name) in enumerate(curves.items()):
            steps, values = series(rows, name)
            color = PALETTE[index % len(PALETTE)]
            if len(steps) > 0:
                _plot(axes, steps, values, color=color, label=legend or None)
        drawn = np.concatenate([series(rows, name)[1] for name in curves.values()])
        ratio = any(name.startswith("probe/sharpness/") for name in curves.values())
        if spans_orders(drawn) or (ratio and np.nanmin(drawn) > 0.0):
            log_axis(axes)
        _label(axes, rows, label)
    return figure


def _plot(
    axes: Axes, steps: np.ndarray, values: np.ndarray, *, color: str, label: str | None
) -> None:
    """Draw a line, with a dot for each measurement while they are few."""
    marker = "o" if len(steps) <= 40 else None
    axes.plot(steps, values, color=color, linewidth=1.8, marker=marker, markersize=3.5, label=label)


def _label(axes: Axes, rows: Rows, label: str) -> None:
    axes.set_xlabel(_steps_label(rows), fontsize=10)
    axes.set_ylabel(label, fontsize=10)
    add_legend(axes)


def _steps_label(rows: Rows) -> str:
    """Name the unit of the x axis and what a step is worth in frames."""
    repeats = {round(row["frame"] / row["step"]) for row in rows if row["step"] > 0}
    if len(repeats) == 1 and repeats != {1}:
        return f"steps (1 step = {repeats.pop()} frames)"
    return "steps"
