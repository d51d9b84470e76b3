"""Claims and figures of the study of when a flat world model predicts better."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbrl_flat.analysis.stats import spearman, standard_error, t_quantile
from mbrl_flat.studies.experiments.central_claim_control import (
    BASELINES,
    control_claims,
    rank_correlations,
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

RATIOS = {"compounding": "ten-step error over one-step error"}

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
    *(
        ("X, not planned", "msam_0.03", "sam_0.1", metric)
        for metric in ("train_lambda_max", "train_adaptive_sharpness", "state_error_last")
    ),
    ("X, not planned", "adam_slow", "adam_matched", "state_error_last"),
    ("X, not planned", "random_0.1", "adam_matched", "state_error_last"),
    *(
        ("X, not planned", variant, "adam_matched", metric)
        for metric in ("train_lambda_max", "value_error_0")
        for variant in ADDED
    ),
    *(("growth, not planned", "sam", other, "compounding") for other in BASELINES),
    *(
        ("growth, not planned", variant, "adam_matched", "compounding")
        for variant in ("msam", "msam_0.03")
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
        claims += [shrinks_with_data(rows, "H1c", "sam", metric) for metric in PRIMARY]
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


def changes_against(rows: TrialRows, variant: str, other: str, metric: str) -> list[float]:
    """Logarithms of ratios of a metric of two variants, one for each seed that both have.

    Args:
        rows: Trials with one number of episodes.
        variant: The one.
        other: What it is divided by.
        metric: A positive column.

    Returns:
        The logarithms, by seed.
    """
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
        metric: Column of ``METRICS``, these after ``stopped_``, of ``RATIOS`` or ``SHARPNESS``.

    Returns:
        The claim, with the mean change in percent.
    """
    changes = changes_against(rows, variant, other, metric)
    base = metric.removeprefix("stopped_")
    words = {**METRICS, **RATIOS, **SHARPNESS}[base]
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


def shrinks_with_data(rows: TrialRows, name: str, variant: str, metric: str) -> Claim:
    """Claim that the advantage over Adam at equal evaluations shrinks with data.

    Args:
        rows: Trials with several numbers of episodes; of a seed only if it has all of them.
        name: Of the claim.
        variant: The one that may have an advantage.
        metric: One of ``METRICS``.

    Returns:
        The claim.
    """
    sizes = sorted(rows.distinct("episodes"))
    per_seed: list[float] = []
    for seed in rows.distinct("seed"):
        ours = rows.where(seed=seed)
        changes = [
            changes_against(ours.where(episodes=n), variant, "adam_matched", metric) for n in sizes
        ]
        if len(sizes) > 1 and all(changes):
            per_seed.append(spearman(np.array(sizes), np.array([c[0] for c in changes])))
    return sign_claim(name, f"{variant}'s advantage shrinks with data: {METRICS[metric]}",
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
