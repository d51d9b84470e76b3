"""The look that all figures share; nothing here touches matplotlib's global state."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    "stable_sam": MethodStyle("StableSAM", "#66C2A5"),
    "zsharp": MethodStyle("ZSharp", "#D6604D"),
    "sassha": MethodStyle("SASSHA", "#BC80BD"),
    "functional_sam": MethodStyle("Functional-SAM", "#1F78B4"),
    "preconditioned_sam": MethodStyle("preconditioned SAM", "#33A02C"),
    "sam_as_published": MethodStyle("SAM as published", "#08306B"),
    "laprop": MethodStyle("LaProp", "#6E6E55"),
    "ema": MethodStyle("EMA", "#8FA3AD"),
    "swa": MethodStyle("SWA", "#5B7C99"),
}
"""One display name and one colour for each method, in every figure of the project."""

VARIANTS: Mapping[str, MethodStyle] = {
    "base": MethodStyle("base optimizer", "#7A7A7A"),
    "adam_matched": MethodStyle("Adam, equal gradient evaluations", "#3D3D3D"),
    "adam_twice": MethodStyle("Adam, twice the updates", "#3D3D3D"),
    "sam_tiny": MethodStyle("SAM, rho near 0", "#A6CEE3"),
    "no_norm": MethodStyle("SAM, no normalisation layers", "#004B76"),
    "random_mask": MethodStyle("SAM, random weights", "#7FA3B8"),
    "msam_flipped": MethodStyle("Momentum-SAM, sign flipped", "#8C5A00"),
    "vasso_0.2": MethodStyle("VaSSO", "#009E73"),
    "published": MethodStyle("published recipe", "#08306B"),
    "published_tiny": MethodStyle("published recipe, rho near 0", "#6BAED6"),
    "weight_decay": MethodStyle("weight decay", "#B5B000"),
    "dropout": MethodStyle("dropout", "#8B2635"),
}
"""The same for variants of studies that are no methods of the registry."""

INK = "#222222"
MUTED = "#767676"

_SHAPES = (
    ("o", "-", INK), ("s", "--", "white"), ("^", ":", INK), ("D", "-.", "white"),
    ("v", "-", "white"),
)  # fmt: skip
MARKS: tuple[Mapping[str, Any], ...] = tuple(
    {"marker": shape, "ls": line, "mfc": face, "color": INK} for shape, line, face in _SHAPES
)
"""Marks and lines of what is no method, such as networks: colours belong to methods."""


def method_style(method: str) -> MethodStyle:
    """Display name and colour of a method, the same in every figure.

    Args:
        method: Name in the registry or of a study's variant; an unknown one keeps its name and
            always gets the same colour.

    Returns:
        The style.
    """
    color = PALETTE[zlib.crc32(method.encode()) % len(PALETTE)]
    return METHODS.get(method) or VARIANTS.get(method, MethodStyle(method, color))


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
    # A page shows a figure 740 pixels wide: what is wider has letters too small to read there.
    width, height = {1: (5.8, 3.5), 2: (8.8, 3.3)}.get(columns, (3.45 * columns, 2.9))
    figure = Figure(figsize=(width, height * rows), layout="constrained", dpi=130)
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


def sequential(count: int) -> list[str]:
    """Colours from light to dark for the values of one setting, hexadecimal RGB."""
    from matplotlib import colormaps, colors  # noqa: PLC0415  # slow to import

    return [colors.to_hex(colormaps["viridis_r"](x)) for x in np.linspace(0.15, 1.0, count)]


def spans_orders(values: np.ndarray) -> bool:
    """Say whether all finite values are positive and more than a factor of 100 apart."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) > 0 and finite.min() > 0.0 and finite.max() > 100.0 * finite.min())


def log_axis(axes: "Axes", which: str = "y") -> None:
    """Make an axis logarithmic with a few plain ticks that do not collide; call it after drawing.

    Args:
        axes: The panel of matplotlib whose ticks are set.
        which: ``x`` or ``y``.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    ticks = log_ticks(*axis.get_view_interval())
    axis.set_ticks([], minor=True)
    axis.set_ticks(ticks, [_thousands(tick, 0) for tick in ticks])


def log_ticks(low: float, high: float) -> list[float]:
    """Two to eight round numbers between two positive ones, for a logarithmic axis."""
    decades = np.log10(high / low)
    powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    if decades > 2.2:
        ticks = 10.0 ** powers[:: max(1, int(decades / 4))]
    elif decades > 0.9:
        ticks = np.outer(10.0**powers, [1.0, 2.0, 5.0]).ravel()
    else:
        size = 10.0 ** np.floor(np.log10((high - low) / 5.0))
        step = next(size * f for f in (1.0, 2.0, 5.0, 10.0) if size * f >= (high - low) / 5.0)
        ticks = np.arange(np.ceil(low / step), high / step + 1.0) * step
    inside = ticks[(ticks >= low * 0.999) & (ticks <= high * 1.001)]
    return [float(f"{tick:.6g}") for tick in inside]


def add_legend(axes: "Axes", *others: "Axes") -> int:
    """Name what is drawn, below the panels, so that the legend never covers data.

    Args:
        axes: Panel that the legend belongs to; alone, it has the legend below itself.
        others: Panels that share one legend with it below all panels; a name stands there once.

    Returns:
        Lines of the legend.
    """
    named: dict[str, Artist] = {}
    for panel in (axes, *others):
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    names = list(named)
    if not names:
        return 0
    figure = axes.get_figure(root=True)
    assert figure is not None
    share = 1.0
    if not others and len(figure.axes) > 1 and (spec := axes.get_subplotspec()) is not None:
        share = spec.get_gridspec().ncols
    # A letter of nine points is five points wide on average, the line before it takes 40.
    fitting = int(72.0 * figure.get_figwidth() / share / (5.0 * max(map(len, names)) + 40.0))
    columns = max(1, min(len(names), fitting))
    style = {
        "frameon": False,
        "fontsize": 9 if len(names) <= 24 else 6,
        "labelcolor": INK,
        "ncols": columns,
    }
    if others or share == 1.0:
        figure.legend(list(named.values()), names, loc="outside lower center", **style)
        return -(-len(names) // columns)
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415  # slow to import

    # By inches and not by a share of the panel: below its label, however low the panel is.
    below = axes.transAxes + ScaledTranslation(0.0, -0.4, figure.dpi_scale_trans)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "bbox_transform": below}
    axes.legend(list(named.values()), names, **place, **style)
    return -(-len(names) // columns)


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure under a temporary name, then rename it: a reader never sees half of it.

    Args:
        figure: The figure of matplotlib; it is closed afterwards.
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
