"""What the figures of several studies share: means with errors, a sweep of radii, guide lines."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from mbrl_flat.analysis.plot_style import log_axis, method_style
from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.studies.framework import TrialRows

NETWORKS = {"mlp": "MLP", "cnn": "CNN", "vit": "ViT"}
"""Display names."""

GUIDE: dict[str, Any] = {"color": "#555555", "lw": 1, "ls": "--"}
"""Style of a line that marks a threshold."""


def draw_means(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Sequence[float]],
    **style: Any,
) -> None:
    """Draw means over seeds with their 95 % intervals.

    Args:
        axes: The panel of matplotlib to draw into.
        x: Places of the means on the horizontal axis, such as radii.
        values: At each place one value for each seed.
        style: Passed on to ``errorbar``.
    """
    found = [t_interval(each) for each in values]
    errors = [[i.point - i.low for i in found], [i.high - i.point for i in found]]
    axes.errorbar(x, [i.point for i in found], errors, **{"marker": "o", "lw": 1.2, **style})


def draw_sweep(axes: Axes, rows: TrialRows, metric: str, label: str) -> None:
    """Draw a metric of every method against its radius: each seed as a dot, the mean as a line.

    A method without a radius is a horizontal line with its seeds at the left; one with a single
    radius is a diamond.

    Args:
        axes: The panel of matplotlib to draw into.
        rows: Of one data set and model.
        metric: What is on the y axis; eigenvalues have a logarithmic one.
        label: How it is called there.
    """
    for method in rows.distinct("method"):
        ours, style = rows.where(method=method), method_style(method)
        radii = sorted(ours.distinct("rho"))
        values = [ours.where(rho=rho).values(metric) for rho in radii]
        means = [t_interval(each).point for each in values]
        if radii == [0.0]:
            axes.axhline(means[0], color=style.color, linewidth=1.4, label=style.name)
            at_the_left = {"transform": axes.get_yaxis_transform(), "color": style.color}
            axes.plot(
                [0.012] * len(values[0]), values[0], "_", markersize=7, alpha=0.6, **at_the_left
            )
            continue
        for rho, each in zip(radii, values, strict=True):
            axes.plot([rho] * len(each), each, ".", color=style.color, markersize=4, alpha=0.4)
        axes.plot(
            radii, means, "-o" if len(radii) > 1 else "D",
            color=style.color, markersize=4, linewidth=1.4, label=style.name,
        )  # fmt: skip
    log_axis(axes, "x")
    if metric == "lambda_max":
        log_axis(axes)
    axes.set_xlabel("rho")
    axes.set_ylabel(label)
