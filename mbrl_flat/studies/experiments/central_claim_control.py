"""Claims and figures of the control half of ``central_claim``: returns, exploitation, robustness.

All are differences between variants on the same seed; hypotheses as in the plan of the study.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import numpy as np
from matplotlib.figure import Figure

from mbrl_flat.analysis.forest import ForestRow, draw_forest
from mbrl_flat.analysis.plot_style import make_panels, method_style
from mbrl_flat.analysis.stats import paired_differences, spearman
from mbrl_flat.studies.framework import Claim, TrialRow, TrialRows, sign_claim

BASELINES = {
    "adam_matched": "Adam at equal evaluations",
    "adam": "Adam at equal updates",
    "random_direction": "a random direction of the same length",
}
HORIZONS = (1, 3, 10)
EXECUTED = (3, 5, 10)
NOISE = {"action_noise_0.4": "action noise", "observation_noise_0.1": "observation noise"}
EXPLAINED_BY = {
    "train_lambda_max": "largest Hessian eigenvalue",
    "state_error_last": "ten-step error of observations",
    "value_error_0": "RMSE of the value",
}


class Bounds(TypedDict, total=False):
    """The claimed range of a difference."""

    above: float
    below: float


MORE: Bounds = {"above": 0.0}
LESS: Bounds = {"below": 0.0}

Measure = Callable[[TrialRow], float | None]


def control_claims(rows: TrialRows) -> list[Claim]:
    """Compare the played models with the plan.

    Args:
        rows: All rows; those of models that were not played are left out.

    Returns:
        R1, R2, H2, H3, M1 to M4 and R3 of the plan; none if no model was played.
    """
    played = TrialRows([row for row in rows if "return_3" in row])
    if not len(played):
        return []
    claims = [
        claim
        for other in BASELINES
        for claim in compared_control(played, "sam", other, names=("R1", "R2", "H2", "H3"))
    ]
    if any(played.where(variant="msam")):
        names = [f"M{number}, not planned" for number in (1, 2, 3, 4)]
        claims += compared_control(played, "msam", "adam_matched", names=names)
    return [*claims, *(_explained(played, metric) for metric in EXPLAINED_BY)]


def compared_control(
    rows: TrialRows, variant: str, other: str, *, names: Sequence[str]
) -> Iterator[Claim]:
    """Claim that a variant earns more than another one, is exploited less, and keeps more.

    Args:
        rows: Rows of models that were played.
        variant: The one.
        other: The other, one of ``BASELINES``.
        names: Of the claims on returns, on the gain by longer plans, on exploitation, and on what
            is kept under noise.

    Yields:
        Differences on the same seed.
    """
    against = f"than {BASELINES[other]}"
    returns, gain, exploited, kept = names
    hypotheses: list[tuple[str, str, Measure, str, Bounds]] = [
        *(
            (
                returns,
                f"{variant} earns more {against}, H = {h}",
                _column(f"return_{h}"),
                "return",
                MORE,
            )
            for h in HORIZONS
        ),
        (
            gain,
            f"{variant} gains more by longer plans {against}",
            lambda row: float(row["return_10"] - row["return_1"]),
            "return at H = 10 less that at H = 1",
            MORE,
        ),
        *(
            (
                exploited,
                f"{variant}'s model is exploited less {against}, k = {k}",
                _column(f"plan_relative_bias_{k}"),
                "imagined less realised return, share of the realised",
                LESS,
            )
            for k in EXECUTED
        ),
        *(
            (
                kept,
                f"{variant} keeps more of its return {against}: {noise}",
                _share(f"return_{name}"),
                "share of the return",
                MORE,
            )
            for name, noise in NOISE.items()
        ),
    ]
    for name, statement, measure, label, bounds in hypotheses:
        pair = (_by_seed(rows, each, measure) for each in (variant, other))
        values = list(paired_differences(*pair).values())
        yield sign_claim(name, statement, f"{label}, difference", values, **bounds)


def _column(name: str) -> Measure:
    return lambda row: row.get(name)


def _share(name: str) -> Measure:
    return lambda row: None if row.get(name) is None else float(row[name] / row["return_3"])


def _by_seed(rows: TrialRows, variant: str, measure: Measure) -> dict[int, float]:
    found = ((int(row["seed"]), measure(row)) for row in rows.where(variant=variant))
    return {seed: value for seed, value in found if value is not None}


def rank_correlations(rows: TrialRows, cause: str, effect: str) -> list[float]:
    """Rank correlation of two metrics over variants, one for each seed with four or more."""
    per_seed: list[float] = []
    for seed in rows.distinct("seed"):
        ours = [row for row in rows.where(seed=seed) if row.get(cause) is not None]
        if len(ours) >= 4:
            first, second = zip(*((row[cause], row[effect]) for row in ours), strict=True)
            per_seed.append(spearman(np.array(first), np.array(second)))
    return per_seed


def _explained(rows: TrialRows, metric: str) -> Claim:
    """Claim that variants with less of something have the larger return, on the same seed."""
    # Momentum-SAM was played later, and is not among the variants of the plan.
    rows = TrialRows([row for row in rows if row["variant"] != "msam"])
    return sign_claim(
        "R3",
        f"models with less of it earn more: {EXPLAINED_BY[metric]}",
        "rank correlation with the return at H = 3 over variants",
        rank_correlations(rows, metric, "return_3"),
        below=0.0,
    )


def draw_control(rows: TrialRows) -> dict[str, Figure]:
    """Draw returns by horizon, exploitation and kept shares of all variants, each seed a point.

    Args:
        rows: Finished trials of the study, one mapping each.

    Returns:
        The figure ``control``; none if no model was played.
    """
    played = TrialRows([row for row in rows if "return_3" in row])
    if not len(played):
        return {}
    shown: dict[str, Measure] = {
        **{f"return, H = {h}": _column(f"return_{h}") for h in HORIZONS},
        "exploitation, k = 10": _column("plan_relative_bias_10"),
        **{f"kept, {noise}": _share(f"return_{name}") for name, noise in NOISE.items()},
    }
    shown = {
        words: measure
        for words, measure in shown.items()
        if any(measure(row) is not None for row in played)
    }
    title = "Planning with the trained models: seeds, mean and 95 % interval"
    figure, panels = make_panels(len(shown), columns=3, title=title)
    for number, (axes, (words, measure)) in enumerate(zip(panels, shown.items(), strict=True)):
        found = [
            ForestRow(
                shown_name(variant),
                list(_by_seed(played, variant, measure).values()),
                shown_color(variant),
            )
            for variant in played.distinct("variant")
        ]
        reference = float(np.mean(list(_by_seed(played, "adam_matched", measure).values())))
        draw_forest(axes, found, reference=reference, named=number % 3 == 0)
        axes.set_xlabel(words)
    return {"control": figure}


def shown_name(variant: str) -> str:
    """Name of a variant in figures."""
    words = {
        "adam": "Adam, equal updates",
        "adam_matched": "Adam, equal evaluations",
        "adam_slow": "Adam, lr 3e-4",
        "random_0.1": "random direction, rho 0.1",
    }
    method, _, what = variant.partition("_")
    if variant in words or method not in ("sam", "msam") or not what:
        return words.get(variant) or method_style(variant).name.replace("_", " ")
    name = method_style(method).name
    return f"{name}, rho {what}" if what[0].isdigit() else f"{name}, {what} alone"


def shown_color(variant: str) -> str:
    """A method has its colour at any radius and on any module; Adam has one for each length."""
    method = variant.partition("_")[0]
    same = {"sam": "sam", "msam": "msam", "random": "random_direction"}
    return method_style("adam" if variant == "adam_slow" else same.get(method, variant)).color
