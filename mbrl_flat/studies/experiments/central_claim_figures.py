"""Figures of the study of when a flat world model predicts better."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import add_legend, log_axis, make_panels, method_style
from mbrl_flat.analysis.stats import t_interval
from mbrl_flat.studies.experiments.central_claim_control import (
    draw_control,
    shown_color,
    shown_name,
)
from mbrl_flat.studies.experiments.central_claim_report import (
    DOSED,
    METRICS,
    changes_against,
    is_dose,
)
from mbrl_flat.studies.experiments.world_model_report import percent
from mbrl_flat.studies.framework import TrialRows


def draw(rows: TrialRows, radii: Mapping[str, float]) -> dict[str, Figure]:
    """Draw the forest plot, the curves along training, the dose-response, and control.

    Args:
        rows: Finished trials of the study, one mapping each.
        radii: Radius of each variant.

    Returns:
        Figures by name.
    """
    most = rows.where(episodes=max(rows.distinct("episodes"), default=0))
    title = "Ratio to Adam at equal gradient evaluations: seeds, mean and 95 % interval"
    forest, panels = make_panels(len(METRICS), columns=3, title=title)
    for number, (axes, (metric, words)) in enumerate(zip(panels, METRICS.items(), strict=True)):
        draw_forest(axes, _forest(most, metric), reference=1.0, ratio=True, named=number % 3 == 0)
        axes.set_xlabel(words)
    curves, panels = make_panels(3, columns=3, title="Along the training, each seed and the mean")
    for axes, (metric, words) in zip(
        panels,
        {"train_loss": "training loss", "test_loss": "held-out loss",
         "state_error_last": METRICS["state_error_last"]}.items(), strict=True,
    ):  # fmt: skip
        _draw_curves(axes, most, metric, words)
    add_legend(*panels)
    title = "Dose-response against Adam at equal updates, %"
    doses, panels = make_panels(len(DOSED), columns=3, title=title)
    for axes, metric in zip(panels, DOSED, strict=True):
        _draw_doses(axes, most, radii, metric)
    add_legend(*panels)
    return {"forest": forest, "curves": curves, "doses": doses, **draw_control(most)}


def _forest(rows: TrialRows, metric: str) -> list[ForestRow]:
    variants = sorted({*rows.distinct("variant")} - {"adam_matched"}, key=shown_name)
    return [
        ForestRow(
            shown_name(variant),
            np.exp(changes_against(rows, variant, "adam_matched", metric)).tolist(),
            shown_color(variant),
        )
        for variant in variants
    ]


def _draw_curves(axes: Axes, rows: TrialRows, metric: str, words: str) -> None:
    for variant in ("adam_matched", "adam", "sam", "random_direction"):
        ours = [row for row in rows.where(variant=variant) if row.get(f"curve_{metric}")]
        color = shown_color(variant)
        for row in ours:
            axes.plot(
                row["curve_evaluations"], row[f"curve_{metric}"], color=color, lw=0.4, alpha=0.5
            )
        if ours:
            mean = np.mean([row[f"curve_{metric}"] for row in ours], 0)
            axes.plot(
                ours[0]["curve_evaluations"], mean, "o-", color=color, lw=1.6, ms=3,
                label=shown_name(variant),
            )  # fmt: skip
            log_axis(axes, "x")
    axes.set_xlabel("gradient evaluations")
    axes.set_title(words, fontsize=10)


def _draw_doses(axes: Axes, rows: TrialRows, radii: Mapping[str, float], metric: str) -> None:
    # Where both have the same radius the second stands beside the first.
    for method, baseline, shift in (("sam", "adam", 1.0), ("msam", "adam_matched", 1.06)):
        doses = {rho: v for v, rho in radii.items() if is_dose(v, method) and rho > 0.0}
        found = {
            rho * shift: [percent(c) for c in changes_against(rows, doses[rho], baseline, metric)]
            for rho in sorted(doses)
        }
        found = {rho: changes for rho, changes in found.items() if changes}
        if not found:  # a study that stopped early has none yet
            continue
        style = method_style(method)
        for rho, changes in found.items():
            axes.plot([rho] * len(changes), changes, "o", color=style.color, ms=3, alpha=0.5)
        low, middle, high = np.transpose([t_interval(changes) for changes in found.values()])
        bars = [middle - low, high - middle]
        axes.errorbar([*found], middle, bars, color=style.color, marker="D", ms=4, label=style.name)
        log_axis(axes, "x")
    axes.axhline(0.0, color="#555555", lw=1, ls="--")
    axes.set_xlabel("rho")
    axes.set_title(METRICS[metric], fontsize=10)
