"""Claims and figures of the study of when a flat world model predicts better."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import add_legend, log_axis, make_panels, method_style
from mbrl_flat.analysis.stats import spearman, standard_error, t_interval, t_quantile
from mbrl_flat.studies.experiments.central_claim_control import (
    BASELINES,
    control_claims,
    draw_control,
    rank_correlations,
    shown_color,
    shown_name,
)
from mbrl_flat.studies.experiments.world_model_report import (
    bootstrap,
    log_changes,
    lower_claim,
    percent,
)
from mbrl_flat.studies.framework import Claim, TrialRows, sign_claim

GATES: dict[str, tuple[str, dict[str, Any]]] = {
    "state_error_1": ("one-step error of observations, share of the variance", {"below": 0.1}),
    "state_error_last": ("ten-step error of observations, share of the variance", {"below": 0.5}),
    "value_error_0": ("RMSE of the value, share of the spread of returns", {"below": 0.4}),
    "generalisation_ratio": ("held-out loss over training loss", {"above": 1.1}),
}
"""Entry condition: metric, words, and bounds that Adam at equal evaluations has to meet."""

METRICS = {
    "test_loss": "held-out loss",
    "state_error_1": "one-step error of observations",
    "state_error_last": "ten-step error of observations",
    "reward_error": "error of rewards",
    "value_error_0": "RMSE of the value",
}
PRIMARY = ("test_loss", "state_error_last")
DOSED = (*PRIMARY, "value_error_0")
"""Metrics with a dose-response; that of the value was not planned."""
CONTROLS = {
    "adam_slow": "Adam with shorter steps",
    "random_0.1": "a random direction of length 0.1",
}
REGULARISERS = {"weight_decay": "weight decay", "dropout": "dropout"}
MODULES = ("sam_dynamics", "sam_encoder", "sam_heads", "msam")
SHARPNESS = {
    "train_lambda_max": "largest Hessian eigenvalue",
    "train_scaled_lambda": "the same times the squared weight norm",
    "train_module_scaled_lambda": "the same with every module over its norm",
    "train_adaptive_sharpness": "adaptive sharpness",
}

ADDED = ("adam_slow", "msam_0.03", "random_0.1", "msam_0.3")
"""Variants that were added after all others; they are not among those that H6 compares."""
COMPARED = (
    ("H4a, not planned", "sam_0.005", "adam", "value_error_0"),
    ("H4a, not planned", "sam_0.1", "adam", "value_error_0"),
    ("H4a, not planned", "sam_0.1", "adam_matched", "state_error_last"),
    *(("H4b", variant, "adam_matched", "state_error_last") for variant in MODULES),
    *(
        ("H4b, not planned", variant, "adam_matched", metric)
        for metric in ("train_lambda_max", "value_error_0")
        for variant in MODULES
    ),
    ("msam, not planned", "msam", "adam_matched", "test_loss"),
    ("msam, not planned", "msam", "adam_matched", "state_error_1"),
    ("msam, not planned", "msam", "adam_matched", "reward_error"),
    ("msam, not planned", "msam", "sam", "state_error_last"),
    *(("flat", "sam", other, "train_lambda_max") for other in BASELINES),
    ("X1, not planned", "msam_0.03", "adam_matched", "state_error_last"),
    ("X1, not planned", "msam_0.3", "adam_matched", "state_error_last"),
    ("X2, not planned", "msam", "adam_slow", "state_error_last"),
    ("X3, not planned", "msam", "random_0.1", "state_error_last"),
    ("X, not planned", "msam_0.03", "sam", "train_lambda_max"),
    ("X, not planned", "msam_0.03", "sam", "state_error_last"),
    ("X, not planned", "adam_slow", "adam_matched", "state_error_last"),
    ("X, not planned", "random_0.1", "adam_matched", "state_error_last"),
    *(
        ("X, not planned", variant, "adam_matched", metric)
        for metric in ("train_lambda_max", "value_error_0")
        for variant in ADDED
    ),
)
"""Claims that one variant has less of something than another: name, variant, other, metric."""

_POWER = 0.8416  # 80 % quantile of the normal distribution


def central_claims(rows: TrialRows, radii: Mapping[str, float]) -> list[Claim]:
    """Compare the rows with the plan.

    Args:
        rows: Finished trials of the study, one mapping each.
        radii: Radius of each variant.

    Returns:
        G: the entry condition; H1, H4 and H6 as in the plan, then those of control.
    """
    most = rows.where(episodes=max(rows.distinct("episodes"), default=0))
    claims = entry_claims(most)
    claims += [
        lower_of(most, "H1a", "sam", other, metric) for other in BASELINES for metric in METRICS
    ]
    claims += [_growth(most, "sam", other, metric) for other in BASELINES for metric in PRIMARY]
    if len(rows.distinct("episodes")) > 1:
        claims += [_data(rows, metric) for metric in PRIMARY]
    claims += [
        lower_of(most, "H1d", "sam", other, f"stopped_{metric}")
        for other in BASELINES
        for metric in PRIMARY
    ]
    claims += [lower_of(most, "H1e", "sam", other, "state_error_last") for other in REGULARISERS]
    claims += [_dose(most, radii, metric) for metric in DOSED]
    claims += [lower_of(most, *compared) for compared in COMPARED]
    claims += [_association(most, measure) for measure in SHARPNESS]
    return [*claims, *control_claims(most)]


def _changes(rows: TrialRows, variant: str, other: str, metric: str) -> list[float]:
    pair = (rows.where(variant=name).by_seed(metric) for name in (variant, other))
    return log_changes(*pair)


def entry_claims(rows: TrialRows) -> list[Claim]:
    """Claim that Adam at equal evaluations meets each bound of the entry condition.

    Args:
        rows: Trials with one number of episodes.

    Returns:
        One claim for each entry of ``GATES``.
    """
    adam = rows.where(variant="adam_matched")
    return [
        sign_claim("G", f"Adam is good enough: {words}", words, adam.values(metric), **bounds)
        for metric, (words, bounds) in GATES.items()
    ]


def lower_of(rows: TrialRows, name: str, variant: str, other: str, metric: str) -> Claim:
    """Claim that a variant has less of something than another one, seed by seed.

    Args:
        rows: Trials with one number of episodes.
        name: Of the claim.
        variant: The one.
        other: The other.
        metric: Column, one of ``METRICS``, those after ``stopped_``, or ``SHARPNESS``.

    Returns:
        The claim, with the mean change in percent.
    """
    changes = _changes(rows, variant, other, metric)
    base = metric.removeprefix("stopped_")
    words = METRICS.get(base) or SHARPNESS[base]
    where = " at the best validation score" if metric != base else ""
    statement = f"{variant} is below {_name(other)}: {words}{where}"
    return lower_claim(name, statement, words, changes, note=_detectable(changes))


def _name(variant: str) -> str:
    return {**BASELINES, **REGULARISERS, **CONTROLS}.get(variant, variant)


def _detectable(changes: Sequence[float]) -> str:
    """Bootstrap interval, the change that has 80 % power, and the seeds that would decide."""
    if len(changes) < 2:
        return ""
    low, _, high = map(percent, bootstrap(changes))
    error = standard_error(changes)
    detectable = percent((t_quantile(len(changes) - 1) + _POWER) * error)
    middle = abs(math.fsum(changes) / len(changes))
    spread = error * math.sqrt(len(changes))
    needed = math.ceil(((1.96 + _POWER) * spread / middle) ** 2) if middle > 0.0 else 0
    return f"bootstrap [{low:.2g}, {high:.2g}]; detectable {detectable:.2g} %; needs {needed} seeds"


def _growth(rows: TrialRows, variant: str, other: str, metric: str) -> Claim:
    """Claim that the advantage is larger at the last point of the training than at the first."""
    pairs = [
        [row[f"curve_{metric}"] for row in (*ours, *theirs) if f"curve_{metric}" in row]
        for seed in rows.distinct("seed")
        for ours, theirs in [[rows.where(variant=name, seed=seed) for name in (variant, other)]]
    ]
    changes = [
        math.log(ours[-1] / theirs[-1]) - math.log(ours[0] / theirs[0])
        for ours, theirs in (pair for pair in pairs if len(pair) == 2)
    ]
    return sign_claim(
        "H1b",
        f"the advantage over {_name(other)} grows along training: {METRICS[metric]}",
        "log of the ratio at the last point less that at the first",
        changes,
        below=0.0,
    )


def _data(rows: TrialRows, metric: str) -> Claim:
    """Claim that the advantage shrinks with data."""
    sizes = sorted(rows.distinct("episodes"))
    per_seed: list[float] = []
    for seed in rows.distinct("seed"):
        ours = rows.where(seed=seed)
        changes = [_changes(ours.where(episodes=n), "sam", "adam_matched", metric) for n in sizes]
        if all(changes):
            per_seed.append(spearman(np.array(sizes), np.array([c[0] for c in changes])))
    return sign_claim("H1c", f"the advantage shrinks with data: {METRICS[metric]}",
                      "rank correlation of episodes and change", per_seed, above=0.0)  # fmt: skip


def _dose(rows: TrialRows, radii: Mapping[str, float], metric: str) -> Claim:
    """Claim that the metric falls with the radius of SAM on all modules."""
    doses = {name: rho for name, rho in radii.items() if is_dose(name)}
    per_seed: list[float] = []
    for seed in rows.distinct("seed"):
        ours = rows.where(seed=seed)
        found = {
            rho: value
            for name, rho in doses.items()
            for value in ours.where(variant=name).values(metric)
        }
        if len(found) >= 3:
            per_seed.append(spearman(np.array(list(found)), np.array(list(found.values()))))
    name = "H4a" if metric in PRIMARY else "H4a, not planned"
    return sign_claim(name, f"falls with rho: {METRICS[metric]}",
                      "rank correlation of rho and the metric", per_seed, below=0.0)  # fmt: skip


def is_dose(variant: str, method: str = "sam") -> bool:
    """Whether a variant is the method on all modules at some radius; ``adam`` counts as 0."""
    radius = variant.removeprefix(f"{method}_").replace(".", "")
    return variant in (method, "adam") or radius.isdigit()


def _association(rows: TrialRows, measure: str) -> Claim:
    """Claim that sharper variants have the larger ten-step error, on the same seed."""
    rows = TrialRows([row for row in rows if row["variant"] not in ADDED])
    per_seed = rank_correlations(rows, measure, "state_error_last")
    return sign_claim("H6", f"flatter variants predict better: {SHARPNESS[measure]}",
                      "rank correlation with the ten-step error over variants", per_seed,
                      above=0.0)  # fmt: skip


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
            np.exp(_changes(rows, variant, "adam_matched", metric)).tolist(),
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
            rho * shift: [percent(c) for c in _changes(rows, doses[rho], baseline, metric)]
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
