"""Line charts and scatter plots as SVG, inline in the page or in files of their own."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import resources

import numpy as np

from mbrl_flat.analysis.plot_style import log_ticks
from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.charts import LOGARITHMIC, TITLES, Chart
from mbrl_flat.compare.curves import Curve, ScatterData
from mbrl_flat.compare.groups import GroupStyle

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 30, 44
_BOX = (_LEFT, _TOP, WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM)
_TOOLTIP = re.compile(' data-chart="[^"]*"')

Styles = Mapping[str, GroupStyle]
"""How each group is drawn, by its label; what has none is drawn as published."""


@dataclass(frozen=True)
class Scale:
    """Maps data to pixels, linearly or by the logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Pixels of ``values`` ``[N]``."""
        low, high = self._place(np.array([self.low, self.high]))
        share = (self._place(np.asarray(values, np.float64)) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def _place(self, values: np.ndarray) -> np.ndarray:
        return np.log10(values) if self.log else values

    def ticks(self) -> list[float]:
        """Round numbers within the range, about six of them."""
        if self.log:
            return log_ticks(self.low, self.high)
        raw = (self.high - self.low) / 6.0
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def line_chart(chart: Chart, styles: Styles) -> str:
    """Draw means with their bands and the seeds as thin lines.

    Args:
        chart: What is drawn.
        styles: Colours by label.

    Returns:
        One ``svg`` element, with the numbers of the curves for the page's tooltip.
    """
    x_scale = _scale(np.concatenate([c.x for c in chart.curves]), _LEFT, WIDTH - _RIGHT)
    curves = [_cut(curve, x_scale.low, x_scale.high) for curve in chart.curves]
    heights = [part for c in curves for part in (c.mean, c.low, c.high)]
    heights += [series.values for c in curves for series in c.seeds]
    if chart.baseline is not None:
        heights.append(np.array([chart.baseline]))
    y_scale = _scale(
        np.concatenate(heights),
        HEIGHT - _BOTTOM,
        _TOP,
        may_be_log=chart.metric in LOGARITHMIC,
        margin=0.04,
    )
    parts = []
    if chart.baseline is not None:
        y = y_scale(np.array([chart.baseline]))[0]
        parts.append(_line("base", _LEFT, WIDTH - _RIGHT, y, y))
    parts += [_curve(curve, styles.get(curve.label), x_scale, y_scale) for curve in curves]
    drawn = [(c.label, styles.get(c.label), c.x, c.mean) for c in curves]
    axes = _axes(x_scale, y_scale, AXES[chart.axis], TITLES[chart.metric])
    return _svg(axes, parts, _tooltip_data(drawn, x_scale, y_scale), TITLES[chart.metric])


def scatter_chart(scatter: ScatterData, styles: Styles) -> str:
    """Draw one dot a run.

    Args:
        scatter: The dots.
        styles: Colours by label.

    Returns:
        One ``svg`` element, with the numbers of the runs for the page's tooltip.
    """
    x, y = (np.array([point[i] for point in scatter.points]) for i in (2, 3))
    x_scale = _scale(x, _LEFT + 8, WIDTH - _RIGHT - 8, may_be_log=True)
    y_scale = _scale(y, HEIGHT - _BOTTOM - 8, _TOP + 8)
    parts = [
        f'<g class="{_classes(styles.get(label))}">{_dot(left, top, 4.5)}</g>'
        for (label, *_), left, top in zip(scatter.points, x_scale(x), y_scale(y), strict=True)
    ]
    drawn = [
        (f"{run} ({label})", styles.get(label), np.array([x_value]), np.array([y_value]))
        for label, run, x_value, y_value in scatter.points
    ]
    x_title, y_title = TITLES[scatter.x_name], TITLES[scatter.y_name]
    axes = _axes(x_scale, y_scale, x_title, y_title)
    data = _tooltip_data(drawn, x_scale, y_scale)
    return _svg(axes, parts, data, f"{y_title} against {x_title}")


def svg_file(charts: Sequence[tuple[str, str]], styles: Styles, *, columns: int) -> str:
    """Put charts side by side in one SVG document, with a legend above them.

    Args:
        charts: Title and ``svg`` element of each chart.
        styles: Colours by label.
        columns: Charts in a row.

    Returns:
        The document; it needs no other file.
    """
    columns = min(columns, len(charts))
    legend, top = _legend(styles, columns * WIDTH)
    rows = -(-len(charts) // columns)
    parts = [
        f'<g transform="translate({n % columns * WIDTH} {top + n // columns * (HEIGHT + 24)})">'
        f'<text class="heading" x="{WIDTH / 2}" y="16" text-anchor="middle">{escape(title)}</text>'
        f'<g transform="translate(0 24)">{_TOOLTIP.sub("", chart)}</g></g>'
        for n, (title, chart) in enumerate(charts)
    ]
    width, height = columns * WIDTH, top + rows * (HEIGHT + 24)
    css = read_asset("chart.css")
    colors = "".join(f".c{s.number}{{color:{s.color}}}" for s in styles.values())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif"><style>{css}{colors}</style>'
        f'<rect width="100%" height="100%" fill="white"/>{legend}{"".join(parts)}</svg>\n'
    )


def read_asset(name: str) -> str:
    """Text of a file in the folder of templates."""
    return resources.files("mbrl_flat.compare").joinpath("templates", name).read_text("utf-8")


def _legend(styles: Styles, width: int) -> tuple[str, int]:
    """Names with their colours in rows, and the height that they take."""
    parts: list[str] = []
    x, y = 16, 20
    for style in styles.values():
        size = 44 + 7 * len(style.name)
        if x + size > width and x > 16:
            x, y = 16, y + 20
        parts.append(
            f'<g class="{style.classes}">{_line("line", x, x + 24, y - 4, y - 4)}'
            f'<text class="title" x="{x + 30}" y="{y}">{escape(style.name)}</text></g>'
        )
        x += size
    return "".join(parts), y + 12


def compact(value: float) -> str:
    """Write 250000 as 250k and 0.00012 as 1.2e-04."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _cut(curve: Curve, low: float, high: float) -> Curve:
    """The curve with its seeds as far as the chart goes: a mean may end before they do."""
    seeds = [series.between(low, high) for series in curve.seeds]
    return replace(curve, seeds=tuple(series for series in seeds if len(series.steps) > 0))


def _classes(style: GroupStyle | None) -> str:
    """Those of the colour, and one by which the page hides the group."""
    return "ref" if style is None else f"{style.classes} g{style.number}"


def _scale(
    values: np.ndarray,
    start: float,
    end: float,
    *,
    may_be_log: bool = False,
    margin: float = 0.0,
) -> Scale:
    """Scale that shows all finite values; logarithmic if asked for and all are positive."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    if may_be_log and low > 0.0:
        return Scale(low / 1.3, high * 1.3, start, end, log=True)
    room = (high - low) * margin if high > low else abs(low) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def _axes(x_scale: Scale, y_scale: Scale, x_title: str, y_title: str) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts: list[str] = []
    ticks = y_scale.ticks()
    for value, y in zip(ticks, y_scale(np.array(ticks)), strict=True):
        parts.append(_line("grid", _LEFT, right, y, y))
        parts.append(_text(compact(value), _LEFT - 6, y + 4.0, anchor="end"))
    ticks = x_scale.ticks()
    for value, x in zip(ticks, x_scale(np.array(ticks)), strict=True):
        parts.append(_text(compact(value), x, bottom + 17))
    parts.append(_line("axis", _LEFT, right, bottom, bottom))
    parts.append(_text(x_title, (_LEFT + right) / 2, HEIGHT - 8, kind="title"))
    parts.append(_text(y_title, 4, 16, kind="title", anchor="start"))
    return "".join(parts)


def _text(text: str, x: float, y: float, *, kind: str = "tick", anchor: str = "middle") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, radius: float) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _curve(curve: Curve, style: GroupStyle | None, x_scale: Scale, y_scale: Scale) -> str:
    parts: list[str] = []
    banded = np.isfinite(curve.low) & np.isfinite(curve.high)
    if y_scale.log:
        banded &= curve.low > 0.0
    if banded.any():
        x = x_scale(curve.x[banded])
        upper, lower = y_scale(curve.high[banded]), y_scale(curve.low[banded])
        outline = _path(np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]]))
        parts.append(f'<path class="band" d="{outline}Z"/>')
    for series in curve.seeds if len(curve.seeds) > 1 else ():
        thin = _path(x_scale(series.steps), y_scale(series.values))
        parts.append(f'<path class="seed" d="{thin}"/>')
    x, y = x_scale(curve.x), y_scale(curve.mean)
    parts.append(f'<path class="line" d="{_path(x, y)}"/>')
    if len(x) <= 12:
        parts += [_dot(a, b, 2.6) for a, b in zip(x, y, strict=True)]
    return f'<g class="{_classes(style)}">{"".join(parts)}</g>'


def _path(x: np.ndarray, y: np.ndarray) -> str:
    known = np.isfinite(x) & np.isfinite(y)
    pairs = zip(x[known].tolist(), y[known].tolist(), strict=True)
    return "M" + "L".join(["%.1f %.1f" % pair for pair in pairs])  # noqa: UP031  # half the time


def _tooltip_data(
    drawn: Iterable[tuple[str, GroupStyle | None, np.ndarray, np.ndarray]],
    x_scale: Scale,
    y_scale: Scale,
) -> str:
    """What the page needs to show the point under the pointer."""
    curves = [
        {
            "label": label if style is None else label.replace(style.label, style.name),
            "group": -1 if style is None else style.number,
            "x": [float(f"{value:.7g}") for value in x.tolist()],
            "y": [float(f"{value:.5g}") for value in y.tolist()],
        }
        for label, style, x, y in drawn
    ]
    scales = {"x": vars(x_scale), "y": vars(y_scale)}
    return json.dumps(scales | {"curves": curves}, separators=(",", ":"))


def _svg(axes: str, parts: Sequence[str], data: str, name: str) -> str:
    """The axes, and what is drawn between them: nothing shows beyond the plot's box."""
    left, top, width, height = _BOX
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(name)}" data-chart="{escape(data)}">{axes}'
        f'<svg class="plot" x="{left}" y="{top - 4}" width="{width + 4}" height="{height + 8}" '
        f'viewBox="{left} {top - 4} {width + 4} {height + 8}">{"".join(parts)}</svg></svg>'
    )
