"""Forest plots: a row for each method with its seeds, their mean and a 95 % interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mbrl_flat.analysis.plot_style import INK, log_axis
from mbrl_flat.analysis.stats import t_interval

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.axes import Axes

MOST_ALONE = 3
"""So few seeds are shown without an interval, which would be wider than what it is about."""


class ForestRow(NamedTuple):
    """One row of a forest plot."""

    name: str
    """What stands beside it."""
    values: Sequence[float]
    """One for each seed."""
    color: str
    """Hexadecimal RGB."""


def draw_forest(
    axes: "Axes",
    rows: Sequence[ForestRow],
    *,
    reference: float | None = None,
    ratio: bool = False,
    named: bool = True,
) -> None:
    """Draw the rows from the top down.

    Args:
        axes: The panel of matplotlib to draw into.
        rows: What is drawn; a row without values has its name alone.
        reference: Where a vertical line stands.
        ratio: Take the mean of the logarithms and draw on a logarithmic axis.
        named: Whether the names stand at the left; panels beside it share them.
    """
    for place, row in enumerate(rows):
        values = np.array(row.values, np.float64)
        if len(values) == 0:
            continue
        low, mean, high = t_interval(np.log(values) if ratio else values)
        if ratio:
            low, mean, high = np.exp([low, mean, high])
        axes.plot(
            values, np.full(len(values), place + 0.26), ".", color=row.color, alpha=0.45, ms=4
        )
        if len(values) > MOST_ALONE:
            axes.plot([low, high], [place, place], color=row.color, lw=2.4, solid_capstyle="butt")
        axes.plot([mean], [place], "o", color=row.color, ms=6)
    if reference is not None:
        axes.axvline(reference, color=INK, linewidth=1.0, zorder=0.9)
    if ratio:
        log_axis(axes, "x")  # after the line, which may be what reaches furthest
    axes.set_yticks(range(len(rows)), [row.name if named else "" for row in rows])
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(rows) - 0.4, -0.6)
