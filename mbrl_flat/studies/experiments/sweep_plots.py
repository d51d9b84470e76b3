"""Figures of a sweep of radii."""

from matplotlib.axes import Axes

from mbrl_flat.analysis.plot_style import method_style
from mbrl_flat.analysis.stats import standard_error, t_interval
from mbrl_flat.studies.framework import TrialRows


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
        ours, color = rows.where(method=method), method_style(method).color
        radii = sorted(ours.distinct("rho"))
        values = [ours.where(rho=rho).values(metric) for rho in radii]
        means = [t_interval(each).point for each in values]
        if radii == [0.0]:
            axes.axhline(means[0], color=color, linewidth=1, label=method_style(method).name)
            continue
        axes.errorbar(
            radii, means, [standard_error(each) for each in values], color=color,
            marker="o", markersize=3, linewidth=1.2, label=method_style(method).name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("radius")
    axes.set_ylabel(label)
