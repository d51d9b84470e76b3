"""Which figures a comparison has; the page and the PNG files draw the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mbrl_flat.compare.axes import Axis
from mbrl_flat.compare.columns import MIN_SEEDS
from mbrl_flat.compare.curves import Curve, ScatterData, average, published, scatter_data
from mbrl_flat.compare.groups import Group

RETURN = "eval/return_mean"
_RANDOM = "eval/random_return_mean"

TITLES = {
    RETURN: "episode return",
    "probe/value/rmse_normalised": "value error (NRMSE)",
    "probe/value/bias": "value bias (units of return)",
    "probe/sharpness/lambda_max": "largest eigenvalue of the Hessian",
    "probe/sharpness/sam_gap": "SAM gap, L(w + e) - L(w)",
    "probe/sharpness/param_norm": "norm of the weights",
    "probe/rollout/latent_error_1": "latent error after one step (share of variance)",
    "probe/rollout/loss_gap": "held-out minus training loss",
    "probe/bound/value_total": "bound of the value gap",
    "probe/bound/value_gap": "measured value gap",
    "probe/bound/loss_total": "bound of the world-model loss",
    "probe/bound/loss_heldout": "held-out world-model loss",
}

LOGARITHMIC = ("probe/sharpness/lambda_max", "probe/sharpness/sam_gap")
"""Metrics on a ratio axis; an axis of returns is never bent."""

FIGURES: Mapping[str, tuple[str, ...]] = {
    "return": (RETURN,),
    "compute": (RETURN,),
    "value_error": ("probe/value/rmse_normalised", "probe/value/bias"),
    "sharpness": (
        "probe/sharpness/lambda_max",
        "probe/sharpness/sam_gap",
        "probe/sharpness/param_norm",
    ),
    "rollout": ("probe/rollout/latent_error_1", "probe/rollout/loss_gap"),
    "bounds": (
        "probe/bound/value_total",
        "probe/bound/value_gap",
        "probe/bound/loss_total",
        "probe/bound/loss_heldout",
    ),
}
"""Curves by figure; the second draws returns once more, against what they cost."""

_COST: tuple[Axis, ...] = ("evaluations", "hours")

SCATTERS = (
    *((x, y) for y in (RETURN, "probe/value/rmse_normalised") for x in LOGARITHMIC),
    ("probe/value/rmse_normalised", RETURN),
)
"""Pairs of metrics at the end of a run."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves of one metric on one task.

    Attributes:
        task: The task.
        metric: The metric.
        curves: Means over seeds, then published curves.
        axis: Unit of x.
        baseline: Mean return of a random policy, where it was measured.
    """

    task: str
    metric: str
    axis: Axis
    curves: tuple[Curve, ...]
    baseline: float | None = None


def build_charts(
    groups: Sequence[Group],
    *,
    axis: Axis,
    references: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, list[Chart]]:
    """Average every metric of every task; those that nobody measured are left out.

    Args:
        groups: Groups of runs, one for each setting and task.
        axis: Unit of x.
        references: Published methods to overlay on returns.
        rng: Source of the bootstrap.

    Returns:
        Charts by figure, task after task.
    """
    charts: dict[str, list[Chart]] = {}
    for figure, metrics in FIGURES.items():
        axes: tuple[Axis, ...] = (axis,)
        if figure == "compute":
            axes = tuple(cost for cost in _COST if cost != axis)
        for task in dict.fromkeys(group.task for group in groups):
            members = [group for group in groups if group.task == task]
            for metric, unit in product(metrics, axes):
                chart = _chart(members, metric, unit, references=references, rng=rng)
                if chart is not None:
                    charts.setdefault(figure, []).append(chart)
    return charts


def _chart(
    groups: Sequence[Group],
    metric: str,
    axis: Axis,
    *,
    references: Sequence[str],
    rng: np.random.Generator,
) -> Chart | None:
    """One metric of the groups of one task; ``None`` if nobody measured it."""
    curves = [average(group, metric, axis=axis, rng=rng) for group in groups]
    known = [curve for curve in curves if curve is not None]
    if not known:
        return None
    task = groups[0].task
    extra = published(references, groups, axis) if metric == RETURN else []
    return Chart(
        task=task,
        metric=metric,
        axis=axis,
        curves=(*known, *extra),
        baseline=_random_return(groups) if metric == RETURN else None,
    )


def build_scatters(groups: Sequence[Group], *, last: float) -> list[tuple[str, ScatterData]]:
    """Pair sharpness with return and value error, one scatter a task and pair of metrics."""
    scatters: list[tuple[str, ScatterData]] = []
    for task in dict.fromkeys(group.task for group in groups):
        members = [group for group in groups if group.task == task]
        for x, y in SCATTERS:
            found = scatter_data(members, x, y, last=last)
            if found is not None:
                scatters.append((task, found))
    return scatters


def describe_correlation(scatter: ScatterData) -> str:
    """Spearman correlation and the number of runs behind it."""
    count = f"n = {len(scatter.points)}"
    if not np.isfinite(scatter.correlation):
        return f"{count}, no correlation (< {MIN_SEEDS} seeds)"
    return f"Spearman {scatter.correlation:.2f}, {count}"


def _random_return(groups: Sequence[Group]) -> float | None:
    values = [run.series(_RANDOM).values for group in groups for run in group.runs]
    known = np.concatenate(values)
    return float(known.mean()) if len(known) > 0 else None
