"""The probe of the loss landscape: losses along directions in the weights, arrays and figures."""

from pathlib import Path
from typing import Any

import numpy as np

from mbrl_flat.diagnostics.inspection import measured_weights, training_batch
from mbrl_flat.diagnostics.landscape import Slice, loss_slice
from mbrl_flat.diagnostics.probe import ProbedRun


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


class LandscapeProbe:
    """A slice of a saved run's loss, as an array and a figure in the folder ``plots`` of the run.

    Args:
        settings: Those of ``landscape.loss_slice``.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def measure_run(self, run: ProbedRun) -> dict[str, float]:
        """Evaluate the slice on one batch as the agent trains on, and draw it."""
        rng = np.random.default_rng(run.seed)
        batch = training_batch(run.agent, run.replay, run.agent.batch_size, rng=rng)
        with measured_weights(run.agent):
            found = loss_slice(run.agent.probe_loss(batch), **self.settings)
        stem = run.folder / "plots" / f"landscape_{run.step:09d}"
        stem.parent.mkdir(exist_ok=True)
        np.savez(stem.with_suffix(".npz"), distances=found.distances, losses=found.losses)
        title = f"{run.folder.name}, step {run.step}"
        draw_slice(found, stem.with_suffix(".png"), title=title)
        return {
            "probe/landscape/centre": float(found.losses.flat[found.losses.size // 2]),
            "probe/landscape/lowest": float(found.losses.min()),
            "probe/landscape/highest": float(found.losses.max()),
        }
