"""The columns of the table: what a run is reduced to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mbrl_flat.compare.axes import Axis, returns_of
from mbrl_flat.compare.runs import EMPTY, Run, Series

FINAL_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where runs of one task are held against each other.

    Attributes:
        axis: What the comparison counts in.
        points: Furthest point of every axis that all runs of the task reached.
    """

    axis: Axis
    points: Mapping[Axis, float]

    @property
    def point(self) -> float:
        """The common point on the axis of the comparison."""
        return self.points[self.axis]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table.

    Attributes:
        key: Its name in ``table.csv``.
        title: Its name for people, with the unit.
        measure: Reduces a run to a number; NaN if it was not measured.
    """

    key: str
    title: str
    measure: Callable[[Run, Match], float]


def final(series: Series, *, share: float = FINAL_SHARE) -> float:
    """Mean over the last tenth of a run: less noisy than its last value alone.

    Args:
        series: One metric.
        share: How much of the steps, from the end, counts.

    Returns:
        The mean of all values after ``(1 - share)`` of the last step; NaN for an empty series.
    """
    if len(series.steps) == 0:
        return np.nan
    last = series.steps[-1]
    return float(
        series.values[(series.steps > (1.0 - share) * last) | (series.steps == last)].mean()
    )


def area_under_curve(series: Series) -> float:
    """Mean height of the curve by the trapezoid rule, in units of its values.

    Returns:
        ``integral of value d step / (last step - first step)``; NaN for an empty series.
    """
    if len(series.steps) < 2:
        return float(series.values[0]) if len(series.steps) == 1 else np.nan
    width = np.diff(series.steps)
    if width.sum() == 0.0:
        return float(series.values.mean())
    height = (series.values[1:] + series.values[:-1]) / 2.0
    return float((width * height).sum() / width.sum())


def return_at(run: Run, axis: Axis, point: float) -> float:
    """Final return of a run as if it had ended at a point of an axis; NaN if it got no further."""
    return final(_returns_until(run, axis, point))


def _returns_until(run: Run, axis: Axis, point: float) -> Series:
    """Evaluations up to ``point``; none of a run that ended before, which would look unfinished."""
    series = returns_of(run, axis)
    reached = len(series.steps) > 0 and series.steps[-1] >= point
    return series.until(point) if reached else EMPTY


def _final_of(name: str) -> Callable[[Run, Match], float]:
    return lambda run, _: final(run.series(name))


def _mean_of(name: str) -> Callable[[Run, Match], float]:
    def measure(run: Run, _: Match) -> float:
        values = run.series(name).values
        return float(values.mean()) if len(values) > 0 else np.nan

    return measure


def _mean_speed(run: Run, _: Match) -> float:
    """Steps over seconds of the whole run: the fast random start weighs what it lasted."""
    speed = run.series("time/steps_per_second")
    steps = np.diff(speed.steps, prepend=0)
    return float(steps.sum() / (steps / speed.values).sum()) if steps.any() else np.nan


COLUMNS = (
    Column(key="final_return", title="final return", measure=_final_of("eval/return_mean")),
    Column(
        key="return_at_common_point",
        title="return at the common point",
        measure=lambda run, match: return_at(run, match.axis, match.point),
    ),
    Column(
        key="return_at_equal_evaluations",
        title="return at equal gradient evaluations",
        measure=lambda run, match: return_at(run, "evaluations", match.points["evaluations"]),
    ),
    Column(
        key="area_under_curve",
        title="area under curve (mean return)",
        measure=lambda run, match: area_under_curve(_returns_until(run, match.axis, match.point)),
    ),
    Column(
        key="normalised_score",
        title="normalised score",
        measure=_final_of("eval/normalised_score"),
    ),
    Column(key="success_rate", title="success rate", measure=_final_of("eval/success_rate")),
    Column(
        key="value_rmse_normalised",
        title="value error (RMSE / spread)",
        measure=_final_of("probe/value/rmse_normalised"),
    ),
    Column(
        key="value_bias",
        title="value bias (units of return)",
        measure=_final_of("probe/value/bias"),
    ),
    Column(
        key="lambda_max",
        title="sharpness (largest eigenvalue)",
        measure=_final_of("probe/sharpness/lambda_max"),
    ),
    Column(key="sam_gap", title="SAM gap", measure=_final_of("probe/sharpness/sam_gap")),
    Column(
        key="adaptive_gap",
        title="adaptive gap",
        measure=_final_of("probe/sharpness/adaptive_gap"),
    ),
    Column(
        key="param_norm", title="norm of weights", measure=_final_of("probe/sharpness/param_norm")
    ),
    Column(
        key="loss_gap",
        title="held-out minus training loss",
        measure=_final_of("probe/rollout/loss_gap"),
    ),
    Column(
        key="evaluations_per_update",
        title="gradient evaluations per update",
        measure=_mean_of("optim/evaluations"),
    ),
    Column(key="steps_per_second", title="steps per second", measure=_mean_speed),
    Column(key="wall_hours", title="wall time (h)", measure=lambda run, _: run.wall_seconds / 3600),
)
