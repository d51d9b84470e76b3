"""Claims and figures of the study of world models learned without control."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import add_legend, make_panels, method_style, spans_orders
from mbrl_flat.analysis.stats import (
    Interval,
    mean,
    paired_differences,
    spearman,
    stratified_bootstrap,
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

_SCATTER = ("train_lambda_max", "value_error")
"""What the scatter shows."""

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
        model: Whose.

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
            [
                correlation
                for seed in rows.distinct("seed")
                if math.isfinite(correlation := _correlation(rows.where(seed=seed), metric))
            ],
            above=0.0,
            note=f"{len(rows.distinct('method'))} methods",
        )
        for metric in _MAIN[1:]
    ]


def _correlation(rows: TrialRows, metric: str) -> float:
    pairs = [
        (row["train_lambda_max"], row[metric])
        for row in rows
        if row.get("train_lambda_max") is not None and row.get(metric) is not None
    ]
    sharp, error = zip(*pairs, strict=True) if pairs else ((), ())
    return spearman(np.array(sharp), np.array(error))


def draw(rows: TrialRows, models: Sequence[str], *, title: str) -> Figure:
    """Draw a row for each model: errors by step against Adam's, and error against sharpness."""
    figure, panels = make_panels(3 * len(models), columns=3, title=title)
    for number, model in enumerate(models):
        state, value, scatter = panels[3 * number : 3 * number + 3]
        ours = rows.where(model=model)
        for method in ours.distinct("method"):
            # Both budgets of Adam share its colour; the larger one is the zero of the curves.
            color = method_style(method.removesuffix("_matched")).color
            for axes, curve in ((state, "state_curve"), (value, "value_curve")):
                change = _change(ours, method, curve)
                axes.plot(change, color=color, lw=1.4, label=method)
            mine = [row for row in ours.where(method=method) if not row.diverged]
            sharp, error = ([row[name] for row in mine] for name in _SCATTER)
            scatter.scatter(sharp, error, color=color, s=14)
        state.set_ylabel(f"{model}: error of observations, %")
        value.set_ylabel(f"{model}: RMSE of the value, %")
        scatter.set_ylabel(f"{model}: RMSE of the value, k = 1 to K")
        scatter.set_xlabel("largest Hessian eigenvalue on training subsequences")
        if spans_orders(np.array(scatter.get_xlim())):
            scatter.set_xscale("log")
        for axes in (state, value):
            axes.set_xlabel("steps ahead")
            axes.set_title("change against Adam at equal evaluations", fontsize=10)
    add_legend(panels[0])
    return figure


def _change(rows: TrialRows, method: str, curve: str) -> np.ndarray:
    """Change of a curve in percent, mean over the seeds that both have; ``[K + 1]`` or empty."""
    mine, base = (
        {row["seed"]: np.array(row[curve]) for row in rows.where(method=name) if not row.diverged}
        for name in (method, "adam_matched")
    )
    with np.errstate(divide="ignore", invalid="ignore"):  # what is known exactly at step 0
        changes = [100.0 * (mine[seed] / base[seed] - 1.0) for seed in mine.keys() & base.keys()]
    return np.mean(changes, 0) if changes else np.array([])
