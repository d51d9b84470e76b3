"""The look that all figures share; nothing here touches matplotlib's global state."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mbrl_flat.errors import require_extra

if TYPE_CHECKING:  # matplotlib takes half a second to import, and most commands draw nothing
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#555555",
)  # fmt: skip
"""Okabe and Ito's colours, which colour-blind readers tell apart; yellow and black replaced."""


class MethodStyle(NamedTuple):
    """How a method is shown in every figure."""

    name: str
    """Display name."""
    color: str
    """Hexadecimal RGB."""


METHODS: Mapping[str, MethodStyle] = {
    "adam": MethodStyle("Adam", "#7A7A7A"),
    "adamw": MethodStyle("AdamW", "#4D4D4D"),
    "sgd": MethodStyle("SGD", "#A9A9A9"),
    "muon": MethodStyle("Muon", "#2F4F4F"),
    "sam": MethodStyle("SAM", "#0072B2"),
    "msam": MethodStyle("Momentum-SAM", "#E69F00"),
    "vasso": MethodStyle("VaSSO", "#009E73"),
    "ivon": MethodStyle("IVON", "#D55E00"),
    "vgd": MethodStyle("VGD", "#8C6D00"),
    "sam_on": MethodStyle("SAM-ON", "#CC79A7"),
    "asam": MethodStyle("ASAM", "#56B4E9"),
    "random_direction": MethodStyle("random direction", "#B79F87"),
    "friendly_sam": MethodStyle("Friendly-SAM", "#7B3294"),
    "gsam": MethodStyle("GSAM", "#1B9E9E"),
    "wsam": MethodStyle("WSAM", "#3F51B5"),
    "looksam": MethodStyle("LookSAM", "#80B1D3"),
    "esam": MethodStyle("ESAM", "#66A61E"),
    "ssam": MethodStyle("SSAM", "#B2DF8A"),
    "sagm": MethodStyle("SAGM", "#E7298A"),
    "gnp": MethodStyle("GNP", "#A6761D"),
    "gam": MethodStyle("GAM", "#FB8072"),
    "cr_sam": MethodStyle("CR-SAM", "#9E0142"),
    "fisher_sam": MethodStyle("Fisher-SAM", "#5E4FA2"),
    "bsam": MethodStyle("bSAM", "#F46D43"),
    "lpf_sgd": MethodStyle("LPF-SGD", "#C2A5CF"),
    "entropy_sgd": MethodStyle("Entropy-SGD", "#ABDDA4"),
    "sampa": MethodStyle("SAMPa", "#3288BD"),
    "stablesam": MethodStyle("StableSAM", "#66C2A5"),
    "zsharp": MethodStyle("ZSharp", "#D6604D"),
    "sassha": MethodStyle("SASSHA", "#BC80BD"),
    "functional_sam": MethodStyle("Functional-SAM", "#1F78B4"),
    "preconditioned_sam": MethodStyle("preconditioned SAM", "#33A02C"),
}
"""One display name and one colour for each method, in every figure of the project."""

INK = "#222222"
MUTED = "#767676"


def method_style(method: str) -> MethodStyle:
    """Display name and colour of a method, the same in every figure.

    Args:
        method: Name in the registry; an unknown one keeps its name and always gets the same colour.

    Returns:
        The style.
    """
    color = PALETTE[zlib.crc32(method.encode()) % len(PALETTE)]
    return METHODS.get(method, MethodStyle(method, color))


def make_panels(
    num_panels: int, *, columns: int = 2, title: str = ""
) -> "tuple[Figure, list[Axes]]":
    """Make a figure with a grid of styled panels.

    Args:
        num_panels: How many panels.
        columns: At most so many side by side.
        title: What stands above them.

    Returns:
        The figure, drawn by Agg without pyplot, and its panels row by row.
    """
    require_extra("train", "matplotlib")
    from matplotlib.figure import Figure  # noqa: PLC0415  # slow to import

    columns = min(columns, num_panels)
    rows = -(-num_panels // columns)
    figure = Figure(figsize=(5.4 * columns, 3.5 * rows), layout="constrained", dpi=120)
    if title:
        figure.suptitle(title, fontsize=12, color=INK, fontweight="bold")
    panels = [figure.add_subplot(rows, columns, number + 1) for number in range(num_panels)]
    for panel in panels:
        style_axes(panel)
    return figure, panels


def style_axes(axes: "Axes") -> None:
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


def add_legend(axes: "Axes", *others: "Axes") -> None:
    """Name what is drawn, outside of the panels, so that the legend never covers data.

    Args:
        axes: Panel that the legend belongs to; alone, it has the legend at its right.
        others: Panels that share one legend with it below all panels; a name stands there once.
    """
    named: dict[str, Artist] = {}
    for panel in (axes, *others):
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    names = list(named)
    if not names:
        return
    style = {"frameon": False, "fontsize": 9 if len(names) <= 24 else 6, "labelcolor": INK}
    if others:
        figure = axes.get_figure(root=True)
        assert figure is not None
        fitting = int(14 * figure.get_figwidth() / (6 + max(map(len, names))))
        columns = max(1, min(len(names), fitting))
        figure.legend(
            list(named.values()), names, loc="outside lower center", ncols=columns, **style
        )
    else:
        axes.legend(
            list(named.values()), names, loc="upper left", bbox_to_anchor=(1.0, 1.0), **style
        )


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure under a temporary name, then rename it: a reader never sees half of it.

    Args:
        figure: The figure.
        path: Where to; its ending says which kind, such as ``.png`` or ``.svg``.

    Returns:
        ``path``.
    """
    from matplotlib import rc_context  # noqa: PLC0415  # slow to import

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
