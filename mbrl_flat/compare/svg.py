"""Line charts and scatter plots as inline SVG; colours come from the page, so dark mode works."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from mbrl_flat.analysis.plot_style import spans_orders
from mbrl_flat.compare.curves import Curve, ScatterData

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 44


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
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            step = max(1, len(powers) // 5)
            return [10.0**power for power in powers][::step]
        raw = (self.high - self.low) / 6.0
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def line_chart(
    curves: Sequence[Curve],
    *,
    colors: Sequence[int],
    x_title: str,
    y_title: str,
    baseline: float | None = None,
    may_be_log: bool = False,
) -> str:
    """Draw means with their bands, thin lines for the seeds and the values under the pointer.

    Args:
        curves: What is drawn.
        colors: Index of the colour of each curve; -1 for published ones, drawn in grey.
        x_title: Label of the x axis with its unit.
        y_title: Label of the y axis with its unit.
        baseline: Height of a dashed line, such as the return of a random policy.
        may_be_log: Whether values far apart may have a logarithmic axis.

    Returns:
        One ``svg`` element.
    """
    x_scale = _scale(np.concatenate([curve.x for curve in curves]), _LEFT, WIDTH - _RIGHT)
    curves = [_cut(curve, x_scale.low, x_scale.high) for curve in curves]
    heights = [curve.mean for curve in curves] + [
        series.values for c in curves for series in c.seeds
    ]
    heights += [part for c in curves for part in (c.low, c.high)]
    if baseline is not None:
        heights.append(np.array([baseline]))
    y_scale = _scale(
        np.concatenate(heights), HEIGHT - _BOTTOM, _TOP, may_be_log=may_be_log, margin=0.04
    )
    parts = [_axes(x_scale, y_scale, x_title, y_title)]
    if baseline is not None:
        y = y_scale(np.array([baseline]))[0]
        parts.append(
            f'<line class="base" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
    for curve, color in zip(curves, colors, strict=True):
        parts.append(_curve(curve, color, x_scale, y_scale))
    return _svg(parts, y_title, data=_pointer_data(curves, colors, x_scale))


def _cut(curve: Curve, low: float, high: float) -> Curve:
    """The curve with its seeds as far as the chart goes: a mean may end before they do."""
    seeds = [series.between(low, high) for series in curve.seeds]
    return replace(curve, seeds=tuple(series for series in seeds if len(series.steps) > 0))


def scatter_chart(
    scatter: ScatterData, *, colors: dict[str, int], x_title: str, y_title: str
) -> str:
    """Draw one dot a run; its name and numbers show under the pointer.

    Args:
        scatter: The dots.
        colors: Index of the colour of each label.
        x_title: Label of the x axis with its unit.
        y_title: Label of the y axis with its unit.

    Returns:
        One ``svg`` element.
    """
    x = np.array([point[2] for point in scatter.points])
    y = np.array([point[3] for point in scatter.points])
    x_scale = _scale(x, _LEFT + 8, WIDTH - _RIGHT - 8, may_be_log=True)
    y_scale = _scale(y, HEIGHT - _BOTTOM - 8, _TOP + 8)
    parts = [_axes(x_scale, y_scale, x_title, y_title)]
    for (label, run, x_value, y_value), left, top in zip(
        scatter.points, x_scale(x), y_scale(y), strict=True
    ):
        color = colors[label]
        text = escape(f"{run} ({label}): {x_value:.4g}, {y_value:.4g}")
        parts.append(
            f'<g class="{_classes(color)}"><circle class="dot" cx="{left:.1f}" cy="{top:.1f}" '
            f'r="4.5"><title>{text}</title></circle></g>'
        )
    return _svg(parts, f"{y_title} against {x_title}")


def compact(value: float) -> str:
    """Write 250000 as 250k and 0.00012 as 1.2e-04."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def color_classes(number: int) -> str:
    """Class for the colour of a group, and for how it is drawn where colours come again."""
    return f"c{number % 8} d{number // 8 % 3}" if number >= 8 else f"c{number}"


def _classes(color: int) -> str:
    """Those of the colour, and one by which the page hides the group."""
    return "ref" if color < 0 else f"{color_classes(color)} g{color}"


def _scale(
    values: np.ndarray,
    start: float,
    end: float,
    *,
    may_be_log: bool = False,
    margin: float = 0.0,
) -> Scale:
    """Scale that shows all finite values; logarithmic if they are positive and far apart."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    if may_be_log and spans_orders(finite):
        return Scale(low / 1.3, high * 1.3, start, end, log=True)
    room = (high - low) * margin if high > low else abs(low) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def _axes(x_scale: Scale, y_scale: Scale, x_title: str, y_title: str) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts: list[str] = []
    ticks = y_scale.ticks()
    for value, y in zip(ticks, y_scale(np.array(ticks)), strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(compact(value), _LEFT - 6, y + 4.0, anchor="end"))
    ticks = x_scale.ticks()
    for value, x in zip(ticks, x_scale(np.array(ticks)), strict=True):
        parts.append(_text(compact(value), x, bottom + 16))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(_text(x_title, (_LEFT + right) / 2, HEIGHT - 8, kind="title"))
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="title" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    return "".join(parts)


def _text(text: str, x: float, y: float, *, kind: str = "tick", anchor: str = "middle") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _curve(curve: Curve, color: int, x_scale: Scale, y_scale: Scale) -> str:
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
    parts.append(
        f'<path class="line" d="{_path(x, y)}"><title>{escape(curve.label)}</title></path>'
    )
    if len(x) <= 12:
        parts += [
            f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>'
            for a, b in zip(x, y, strict=True)
        ]
    return f'<g class="{_classes(color)}">{"".join(parts)}</g>'


def _path(x: np.ndarray, y: np.ndarray) -> str:
    known = np.isfinite(x) & np.isfinite(y)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[known], y[known], strict=True))


def _pointer_data(curves: Sequence[Curve], colors: Sequence[int], x_scale: Scale) -> str:
    """What the page needs to show values under the pointer."""
    rows = [
        {
            "label": curve.label,
            "color": color,
            "x": [float(f"{x:.7g}") for x in curve.x],
            "y": [float(f"{y:.5g}") for y in curve.mean],
        }
        for curve, color in zip(curves, colors, strict=True)
    ]
    data = {"low": x_scale.low, "high": x_scale.high, "start": x_scale.start, "end": x_scale.end}
    return json.dumps(data | {"curves": rows}, separators=(",", ":"))


def _svg(parts: Sequence[str], name: str, *, data: str = "") -> str:
    attribute = f' data-curves="{escape(data)}"' if data else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}"{attribute}>'
        f"{''.join(parts)}</svg>"
    )
