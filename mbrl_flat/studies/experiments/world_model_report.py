"""Claims and figures of the study of world models learned without control."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import INK, make_panels, method_style
from mbrl_flat.analysis.stats import (
    Interval,
    mean,
    paired_differences,
    spearman,
    stratified_bootstrap,
    t_interval,
)
from mbrl_flat.studies.framework import Claim, TrialRows, sign_claim

_METRICS = {
    "train_lambda_max": ("is flatter on training subsequences", "largest Hessian eigenvalue"),
    "test_lambda_max": ("is flatter on held-out subsequences", "largest Hessian eigenvalue there"),
    "train_scaled_lambda": ("is flatter for its weights", "lambda_max times squared weight norm"),
    "test_loss": ("has the lower held-out loss", "held-out loss"),
    "state_error": ("predicts observations better", "open-loop error of observations"),
    "compounding": ("compounds less", "observations' error after K steps over that after one"),
    "reward_error": ("predicts rewards better", "open-loop error of rewards"),
    "value_error_0": ("values recorded states better", "RMSE of the value"),
    "value_error": ("values predicted states better", "RMSE of the value, k = 1 to K"),
}
"""What is claimed of a sharpness-aware world model, and how it is measured; lower is better."""

_FOREST = (
    ("train_lambda_max", "Hessian eigenvalue"),
    ("state_error_1", "error, 1 step"),
    ("state_error_last", "error, 10 steps"),
)
"""What the figure shows."""

MODELS = {"tdmpc2": "TD-MPC2", "transformer": "transformer"}
"""Display names."""

_MAIN = ("train_lambda_max", "state_error", "reward_error", "value_error")
"""What is said of every method."""

_BASELINES = {
    "adam_matched": "Adam at equal evaluations",
    "adam": "Adam at equal updates",
}
_OTHERS = {**_BASELINES, "random_direction": "a random direction of equal length"}


def offline_claims(rows: TrialRows, model: str) -> list[Claim]:
    """Hold the rows of one model against the claims.

    Args:
        rows: TrialRows of test episodes.
        model: Name of the world model that the claims are about.

    Returns:
        SAM against both baselines in every metric; the other methods and the control in the
        errors; and how sharpness and errors go together.
    """
    ours = rows.where(model=model)
    claims = [
        _lower(ours, f"W{number}{letter}", metric, "sam", baseline)
        for number, metric in enumerate(_METRICS, start=1)
        for letter, baseline in zip("ab", _BASELINES, strict=True)
    ]
    claims += [
        _lower(ours, f"M {method}", metric, method, "adam_matched")
        for method in ("msam", "vasso", "sam_on")
        for metric in _MAIN
    ]
    claims += [_lower(ours, "control", metric, "sam", "random_direction") for metric in _MAIN]
    return [*claims, *_correlations(ours, model)]


def _lower(rows: TrialRows, name: str, metric: str, method: str, other: str) -> Claim:
    """Claim that a method has less of something than another one, seed by seed."""
    statement, label = _METRICS[metric]
    pair = (rows.where(method=each).by_seed(metric) for each in (method, other))
    changes = log_changes(*pair)
    low, _, high = map(percent, bootstrap(changes))
    return lower_claim(
        name,
        f"{', '.join(rows.distinct('model'))}: {method} {statement} than {_OTHERS[other]}",
        label,
        changes,
        note="" if math.isnan(low) else f"bootstrap [{low:.3g}, {high:.3g}]",
    )


def lower_claim(
    name: str, statement: str, label: str, changes: Sequence[float], *, note: str
) -> Claim:
    """Claim that logarithms of a ratio are below 0, shown as changes in percent."""
    claim = sign_claim(name, statement, f"{label}, change in %", changes, below=0.0, note=note)
    return replace(claim, interval=Interval(*map(percent, claim.interval)))


def percent(log_change: float) -> float:
    """A difference of logarithms as a change in percent; it keeps signs and order."""
    return 100.0 * math.expm1(log_change)


def log_changes(treatment: Mapping[int, float], control: Mapping[int, float]) -> list[float]:
    """``log(treatment / control)`` for every seed that has both, if all are positive."""
    if any(value <= 0.0 for value in (*treatment.values(), *control.values())):
        return []
    logs = (
        {seed: math.log(value) for seed, value in each.items()} for each in (treatment, control)
    )
    return list(paired_differences(*logs).values())


def bootstrap(values: Sequence[float]) -> Interval:
    """Percentile interval of the mean over seeds; NaN where there is none."""
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    return stratified_bootstrap([np.array(values)], mean, rng=np.random.default_rng(0))


def _correlations(rows: TrialRows, model: str) -> list[Claim]:
    """Whether flatter methods are the better ones, on the same seed."""
    return [
        sign_claim(
            "corr",
            f"{model}: flatter methods have a lower {metric.replace('_', ' ')}",
            "Spearman correlation of lambda_max and the error over methods, seed by seed",
            _by_seed(rows, metric),
            above=0.0,
            note="; ".join([f"{len(rows.distinct('method'))} methods", *_resting_on(rows, metric)]),
        )
        for metric in _MAIN[1:]
    ]


def _by_seed(rows: TrialRows, metric: str) -> list[float]:
    values = [_correlation(rows.where(seed=seed), metric) for seed in rows.distinct("seed")]
    return [value for value in values if math.isfinite(value)]


def _resting_on(rows: TrialRows, metric: str) -> list[str]:
    """Methods without which the sign of a correlation is no longer certain, or another one."""
    whole = t_interval(_by_seed(rows, metric))
    if not whole.low * whole.high > 0.0:
        return []
    found: list[str] = []
    for method in rows.distinct("method"):
        rest = TrialRows([row for row in rows if row["method"] != method])
        without = t_interval(_by_seed(rest, metric))
        if not min(without.low * whole.low, without.high * whole.high) > 0.0:
            low, high = without.low, without.high
            found.append(f"without {method} {without.point:.3g} [{low:.3g}, {high:.3g}]")
    return found


def _correlation(rows: TrialRows, metric: str) -> float:
    pairs = [
        (row["train_lambda_max"], row[metric])
        for row in rows
        if row.get("train_lambda_max") is not None and row.get(metric) is not None
    ]
    sharp, error = zip(*pairs, strict=True) if pairs else ((), ())
    return spearman(np.array(sharp), np.array(error))


def draw(rows: TrialRows, models: Sequence[str], *, title: str) -> Figure:
    """Draw a row of forest plots for each model: ratios to Adam at equal gradient evaluations."""
    title = f"{title}, against Adam with as many gradient evaluations"
    figure, panels = make_panels(len(_FOREST) * len(models), columns=len(_FOREST), title=title)
    for number, axes in enumerate(panels):
        model, (metric, label) = models[number // len(_FOREST)], _FOREST[number % len(_FOREST)]
        ours = rows.where(model=model)
        methods = [m for m in ours.distinct("method") if m != "adam_matched"]
        forest = [
            ForestRow(
                "Adam, equal updates" if method == "adam" else method_style(method).name,
                np.exp(log_changes(*(ours.where(method=m).by_seed(metric) for m in pair))).tolist(),
                method_style(method).color,
            )
            for method in methods
            for pair in [(method, "adam_matched")]
        ]
        first = number % len(_FOREST) == 0
        draw_forest(axes, forest, reference=1.0, ratio=True, named=first)
        axes.set_title(f"{MODELS.get(model, model)}: {label}", fontsize=10, color=INK, loc="left")
        words = "flatter | sharper" if metric.endswith("lambda_max") else "better | worse"
        axes.set_xlabel(f"ratio to Adam ({words})", fontsize=9)
    return figure
