"""The charts of a comparison as PNG and SVG files, for papers and slides."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import (
    MUTED,
    PALETTE,
    add_legend,
    make_panels,
    save_figure,
    spans_orders,
)
from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.charts import FIGURES, LOGARITHMIC, TITLES, Chart, describe_correlation
from mbrl_flat.compare.comparison import RunComparison
from mbrl_flat.compare.curves import ScatterData

_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")
_SCATTER = "sharpness_scatter"
FIGURE_NAMES = tuple(
    f"{name}.{ending}" for name in (*FIGURES, _SCATTER) for ending in ("png", "svg")
)
"""Every file that a report may have drawn."""


def draw_figures(comparison: RunComparison, folder: Path) -> list[Path]:
    """Draw a PNG and an SVG file for each kind of chart that has data.

    Args:
        comparison: What is drawn.
        folder: Where to.

    Returns:
        The files written.
    """
    written: list[Path] = []
    for name, charts in comparison.charts.items():
        of_a_task = sum(chart.task == charts[0].task for chart in charts)
        figure, panels = make_panels(len(charts), columns=of_a_task if of_a_task > 1 else 3)
        for axes, chart in zip(panels, charts, strict=True):
            _draw_chart(axes, chart)
        add_legend(*panels)
        written += _save(figure, folder / name)
    if comparison.scatters:
        figure, panels = make_panels(len(comparison.scatters), columns=2)
        for axes, (task, scatter) in zip(panels, comparison.scatters, strict=True):
            _draw_scatter(axes, task, scatter, comparison)
        add_legend(*panels)
        written += _save(figure, folder / _SCATTER)
    return written


def _save(figure: Figure, stem: Path) -> list[Path]:
    bitmap = save_figure(figure, stem.with_suffix(".png"))
    # The panels stay where the first drawing put them: finding that out is half of the work.
    figure.set_layout_engine("none")
    return [bitmap, save_figure(figure, stem.with_suffix(".svg"))]


def _draw_chart(axes: Axes, chart: Chart) -> None:
    for curve, color in zip(chart.curves, chart.colors, strict=True):
        ink = MUTED if color < 0 else PALETTE[color % len(PALETTE)]
        dashes = "--" if color < 0 else _DASHES[color // len(PALETTE) % len(_DASHES)]
        marker = "o" if len(curve.x) <= 12 else None
        axes.plot(
            curve.x,
            curve.mean,
            dashes,
            color=ink,
            label=_plain(curve.label),
            marker=marker,
            markersize=3,
        )
        axes.fill_between(curve.x, curve.low, curve.high, color=ink, alpha=0.15, linewidth=0)
    if chart.baseline is not None:
        axes.axhline(chart.baseline, color=MUTED, linestyle=":", label="random policy")
    means = np.concatenate([curve.mean for curve in chart.curves])
    if chart.metric in LOGARITHMIC and spans_orders(means):
        axes.set_yscale("log")
    axes.set_title(_plain(chart.task), fontsize=10)
    axes.set_xlabel(AXES[chart.axis], fontsize=10)
    axes.set_ylabel(TITLES[chart.metric], fontsize=10)


def _draw_scatter(axes: Axes, task: str, scatter: ScatterData, comparison: RunComparison) -> None:
    for label in dict.fromkeys(point[0] for point in scatter.points):
        points = np.array([point[2:] for point in scatter.points if point[0] == label])
        number = comparison.colors[label]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=24,
            color=PALETTE[number % len(PALETTE)],
            marker=_MARKERS[number // len(PALETTE) % len(_MARKERS)],
            label=_plain(label),
        )
    axes.set_title(f"{_plain(task)}: {describe_correlation(scatter)}", fontsize=10)
    axes.set_xlabel(TITLES[scatter.x_name], fontsize=10)
    axes.set_ylabel(TITLES[scatter.y_name], fontsize=10)


def _plain(text: str) -> str:
    """The text as it is, where matplotlib would read formulas between dollars."""
    return text.replace("$", r"\$")
