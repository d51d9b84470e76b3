"""Images of slices of a loss."""

from pathlib import Path

from mbrl_flat.diagnostics.landscape import Slice


def draw_slice(found: Slice, path: Path, *, title: str = "") -> Path:
    """Draw a curve, or contours over two directions.

    Args:
        found: What to draw.
        path: The image, a PNG.
        title: What stands above it.

    Returns:
        ``path``.
    """
    # Measuring needs no matplotlib; only drawing pays for its import.
    from mbrl_flat.analysis.plot_style import PALETTE, make_panels, save_figure  # noqa: PLC0415

    figure, (axes,) = make_panels(1, title=title)
    name = "filter-normalised direction" if found.directions == "filter" else "eigenvector"
    labels = [f"{name} {number + 1}" for number in range(found.losses.ndim)]
    for number, curvature in enumerate(found.curvatures):
        labels[number] += f", eigenvalue {curvature:.3g}"
    axes.set_xlabel(labels[0])
    if found.losses.ndim == 1:
        axes.plot(found.distances, found.losses, color=PALETTE[0], linewidth=1.8)
        axes.set_ylabel("loss")
    else:
        # Contours take rows as y; the first direction runs along x.
        filled = axes.contourf(found.distances, found.distances, found.losses.T, levels=20)
        axes.plot([0.0], [0.0], marker="+", color="white", markersize=10)
        axes.set_ylabel(labels[1])
        figure.colorbar(filled, ax=axes, label="loss")
    return save_figure(figure, path)
