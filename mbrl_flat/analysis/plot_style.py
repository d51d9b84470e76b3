"""The look that all figures share; nothing here touches matplotlib's global state."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#555555",
)  # fmt: skip
"""Okabe and Ito's colours, which colour-blind readers tell apart; yellow and black replaced."""

INK = "#222222"
MUTED = "#767676"


def make_panels(num_panels: int, *, columns: int = 2, title: str = "") -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of styled panels.

    Args:
        num_panels: How many panels.
        columns: At most so many side by side.
        title: What stands above them.

    Returns:
        The figure, drawn by Agg without pyplot, and its panels row by row.
    """
    columns = min(columns, num_panels)
    rows = -(-num_panels // columns)
    figure = Figure(figsize=(5.4 * columns, 3.5 * rows), layout="constrained", dpi=120)
    if title:
        figure.suptitle(title, fontsize=12, color=INK, fontweight="bold")
    panels = [figure.add_subplot(rows, columns, number + 1) for number in range(num_panels)]
    for panel in panels:
        style_axes(panel)
    return figure, panels


def style_axes(axes: Axes) -> None:
    """Light grid behind the data, no frame at the top and the right, small muted ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#BBBBBB")
    axes.grid(visible=True, color="#E9E9E9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.xaxis.set_major_formatter(_thousands)


def spans_orders(values: np.ndarray) -> bool:
    """Say whether all finite values are positive and more than a factor of 100 apart."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) > 0 and finite.min() > 0.0 and finite.max() > 100.0 * finite.min())


def add_legend(axes: Axes, *others: Axes) -> None:
    """Name what is drawn, here and on other panels, if anything has a name.

    Args:
        axes: Panel with the legend.
        others: Panels whose names it has too; one that several have stands there once.
    """
    named: dict[str, Artist] = {}
    for panel in (axes, *others):
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    names = list(named)
    if names:
        # Where the best place is takes long to find among many curves.
        few = len(names) <= 8
        legend = axes.legend(
            list(named.values()),
            names,
            loc="best" if few else "upper left",
            frameon=False,
            fontsize=9 if few else 5,
            ncols=1 if few else 2,
            labelcolor=INK,
        )
        # The panel keeps its size however many names there are.
        legend.set_in_layout(False)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure under a temporary name, then rename it: a reader never sees half of it.

    Args:
        figure: The figure.
        path: Where to; its ending says which kind, such as ``.png`` or ``.svg``.

    Returns:
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    # Without them two files of the same figure differ in the names of their parts and the date.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(temporary, format=path.suffix.removeprefix("."), metadata=metadata)
    return temporary.replace(path)


def _thousands(value: float, _position: float) -> str:
    """Write 250000 as 250k."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
