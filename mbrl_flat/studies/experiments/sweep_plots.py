"""What the figures of several studies share: means with errors, a sweep of radii, guide lines."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from mbrl_flat.analysis.plot_style import method_style
from mbrl_flat.analysis.stats import standard_error, t_interval
from mbrl_flat.studies.framework import TrialRows

GUIDE: dict[str, Any] = {"color": "#555555", "lw": 1, "ls": "--"}
"""Style of a line that marks a threshold."""


def draw_means(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Sequence[float]],
    *,
    intervals: bool = True,
    **style: Any,
) -> None:
    """Draw means over seeds with their 95 % intervals, or with standard errors.

    Args:
        axes: Where.
        x: Places.
        values: At each place one value for each seed.
        intervals: Draw 95 % intervals; otherwise standard errors.
        style: Passed on to ``errorbar``.
    """
    found = [t_interval(each) for each in values]
    errors: Any = [standard_error(each) for each in values]
    if intervals:
        errors = [[i.point - i.low for i in found], [i.high - i.point for i in found]]
    axes.errorbar(x, [i.point for i in found], errors, **{"marker": "o", "lw": 1.2, **style})


def draw_sweep(axes: Axes, rows: TrialRows, metric: str, label: str) -> None:
    """Draw a metric of every method against its radius, the mean with its standard error.

    A method without a radius is a horizontal line.

    Args:
        axes: Where.
        rows: Of one data set and model.
        metric: What is on the y axis.
        label: How it is called there.
    """
    for method in rows.distinct("method"):
        ours, style = rows.where(method=method), method_style(method)
        radii = sorted(ours.distinct("rho"))
        values = [ours.where(rho=rho).values(metric) for rho in radii]
        named: dict[str, Any] = {"color": style.color, "label": style.name}
        if radii == [0.0]:
            axes.axhline(t_interval(values[0]).point, linewidth=1, **named)
        else:
            draw_means(axes, radii, values, intervals=False, ms=3, **named)
    axes.set(xscale="log", xlabel="radius", ylabel=label)
