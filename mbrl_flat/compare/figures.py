"""The charts of a comparison as PNG and SVG files, for papers and slides."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from mbrl_flat.analysis.plot_style import MUTED, add_legend, log_axis, make_panels, save_figure
from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.charts import FIGURES, LOGARITHMIC, TITLES, Chart, describe_correlation
from mbrl_flat.compare.comparison import RunComparison
from mbrl_flat.compare.curves import Curve, ScatterData
from mbrl_flat.compare.svg import Styles, svg_file
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.parallel import map_in_processes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")
_FEW_RUNS = 50
_SCATTER = "sharpness_scatter"
FIGURE_NAMES = tuple(
    f"{name}.{ending}" for name in (*FIGURES, _SCATTER) for ending in ("png", "svg")
)
"""Every file that a report may have drawn."""


def draw_figures(comparison: RunComparison, folder: Path) -> list[Path]:
    """Draw a PNG and an SVG file for each kind of chart that has data.

    Args:
        comparison: What is drawn.
        folder: Folder that the PNG files are written to.

    Returns:
        The files written.
    """
    styles, scatters = comparison.styles, comparison.scatters
    written: list[Path] = []
    drawings: list[Callable[[], Path]] = []
    for name, charts in comparison.charts.items():
        of_a_task = sum(chart.task == charts[0].task for chart in charts)
        columns = of_a_task if of_a_task > 1 else 3
        parts = [partial(_draw_chart, chart=chart, styles=styles) for chart in charts]
        drawings.append(partial(_draw_png, folder / f"{name}.png", parts, columns))
        tasks = [chart.task for chart in charts]
        panels = [*zip(tasks, comparison.curves_drawn[name], strict=True)]
        written.append(_draw_svg(folder / f"{name}.svg", panels, styles, columns))
    if scatters:
        named: set[str] = set()
        parts = [
            partial(_draw_scatter, task=task, scatter=found, styles=styles, named=named)
            for task, found in scatters
        ]
        drawings.append(partial(_draw_png, folder / f"{_SCATTER}.png", parts, 2))
        titles = [f"{task}: {describe_correlation(found)}" for task, found in scatters]
        panels = [*zip(titles, comparison.scatters_drawn, strict=True)]
        written.append(_draw_svg(folder / f"{_SCATTER}.svg", panels, styles, 2))
    # A process of its own imports matplotlib once more, which few curves are not worth.
    many = len(comparison.runs) > _FEW_RUNS
    written += map_in_processes(_call, drawings, share=2 if many else len(drawings) + 1)
    return sorted(written)


def _call(draw: Callable[[], Path]) -> Path:
    return draw()


def _draw_svg(path: Path, panels: list[tuple[str, str]], styles: Styles, columns: int) -> Path:
    write_text_atomically(path, svg_file(panels, styles, columns=columns))
    return path


def _draw_png(path: Path, drawings: "list[Callable[[Axes], None]]", columns: int) -> Path:
    """Draw one panel each, with one legend above all of them."""
    figure, panels = make_panels(len(drawings), columns=columns)
    for axes, draw in zip(panels, drawings, strict=True):
        draw(axes)
    lines = add_legend(*panels)
    # Fixed margins: to find them by drawing everything would take as long as the drawing.
    figure.set_layout_engine(None)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.9 / width,
        right=1.0 - 0.15 / width,
        top=1.0 - 0.35 / height,
        bottom=(0.65 + 0.2 * lines) / height,
        wspace=0.36,
        hspace=0.42,
    )
    for axes in panels:
        # Labels at fixed places: to look for free ones takes a third of the drawing.
        place = axes.get_position()
        axes.xaxis.set_label_coords(0.5, -0.36 / (height * place.height))
        axes.yaxis.set_label_coords(-0.56 / (width * place.width), 0.5)
    return save_figure(figure, path)


def _draw_chart(axes: "Axes", chart: Chart, styles: Styles) -> None:
    from matplotlib.collections import PolyCollection  # noqa: PLC0415  # slow to import

    bands: list[tuple[np.ndarray, str]] = []
    for curve in chart.curves:
        style = styles.get(curve.label)
        color, dash = (MUTED, "--") if style is None else (style.color, _DASHES[style.dash])
        marker = "o" if len(curve.x) <= 12 else None
        name = _plain(curve.label if style is None else style.name)
        axes.plot(curve.x, curve.mean, dash, color=color, label=name, marker=marker, markersize=3)
        bands += [(part, color) for part in _band(curve)]
        for series in curve.seeds if len(curve.seeds) > 1 else ():
            axes.plot(series.steps, series.values, color=color, linewidth=0.6, alpha=0.35)
    if bands:
        # One call for all: to add a band alone takes longer than to draw it.
        outlines, colors = zip(*bands, strict=True)
        axes.add_collection(
            PolyCollection(outlines, facecolors=colors, edgecolors="none", alpha=0.15, linewidth=0)
        )
    if chart.baseline is not None:
        axes.axhline(chart.baseline, color=MUTED, linestyle=":", label="random policy")
    drawn = [part for c in chart.curves for part in (c.mean, *(s.values for s in c.seeds))]
    if chart.metric in LOGARITHMIC and np.nanmin(np.concatenate(drawn)) > 0.0:
        log_axis(axes)
    _label(axes, _plain(chart.task), AXES[chart.axis], TITLES[chart.metric])


def _band(curve: Curve) -> list[np.ndarray]:
    """Outlines ``[2 G, 2]`` of the band, one for each stretch where it is known."""
    known = np.isfinite(curve.low) & np.isfinite(curve.high)
    stretches = np.split(np.arange(len(known)), np.flatnonzero(np.diff(known)) + 1)
    x = curve.x
    return [
        np.stack(
            [np.append(x[s], x[s][::-1]), np.append(curve.low[s], curve.high[s][::-1])], axis=1
        )
        for s in stretches
        if len(s) > 0 and known[s[0]]
    ]


def _draw_scatter(
    axes: "Axes", task: str, scatter: ScatterData, styles: Styles, named: set[str]
) -> None:
    """Draw the dots of all groups at once; a group that is not yet ``named`` gets a legend."""
    for dash, marker in enumerate(_MARKERS):
        points = [point for point in scatter.points if styles[point[0]].dash == dash]
        if points:
            colors = [styles[label].color for label, *_ in points]
            axes.scatter(*np.array([p[2:] for p in points]).T, s=24, color=colors, marker=marker)
    for style in (styles[label] for label in dict.fromkeys(point[0] for point in scatter.points)):
        if style.label not in named:
            marker = _MARKERS[style.dash]
            axes.scatter([], [], s=24, label=_plain(style.name), color=style.color, marker=marker)
            named.add(style.label)
    if min(point[2] for point in scatter.points) > 0.0:
        log_axis(axes, "x")
    title = f"{_plain(task)}: {describe_correlation(scatter)}"
    _label(axes, title, TITLES[scatter.x_name], TITLES[scatter.y_name])


def _label(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, y=1.0)
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(fill(y, 24), fontsize=10)


def _plain(text: str) -> str:
    """The text as it is, where matplotlib would read formulas between dollars."""
    return text.replace("$", r"\$")
