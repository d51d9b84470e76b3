"""The columns of the table: what a run is reduced to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mbrl_flat.compare.axes import AXES, Axis, common_point, evaluated, returns_of
from mbrl_flat.compare.runs import Run, Series

FINAL_SHARE = 0.1
"""How much of a run, from its end, its final values are means over."""

MIN_SEEDS = 5
"""From fewer seeds no winner, rank correlation or probability of improvement is given."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where runs of one task are compared.

    Attributes:
        axis: What the comparison counts in.
        places: Where every run is read for its return, on every axis in ascending order; the last
            one is the common point, the furthest that all runs of the task reached.
        share: How much of a run, from its end, its final values are means over.
    """

    axis: Axis
    places: Mapping[Axis, np.ndarray]
    share: float = FINAL_SHARE

    @property
    def point(self) -> float:
        """The common point on the axis of the comparison; NaN if no run got anywhere."""
        return float(self.places[self.axis][-1])


def match_runs(runs: Sequence[Run], axis: Axis, *, share: float = FINAL_SHARE) -> Match:
    """Find where the runs of one task can be compared.

    Every run is read at the same places of an axis: at the common point, and wherever in the last
    ``share`` before it any run was evaluated. Were each read at its own evaluations instead, a
    method that spends two gradients an update would be judged by earlier ones than another.

    Args:
        runs: All runs of the task.
        axis: What the comparison counts in.
        share: How much of the way to the common point, from there back, counts.

    Returns:
        The places on every axis.
    """
    places: dict[Axis, np.ndarray] = {}
    for name in AXES:
        point = common_point(runs, name)
        found = np.concatenate([*(returns_of(run, name).steps for run in runs), [point]])
        inside = (found > (1.0 - share) * point) & (found < point)
        places[name] = np.append(np.unique(found[inside]), point)
    return Match(axis=axis, places=places, share=share)


class Column(NamedTuple):
    """One column of the table."""

    key: str
    """Its name in ``table.csv``."""
    title: str
    """Its name for people, with the unit."""
    measure: Callable[[Run, Match], float]
    """Reduces a run to a number; NaN if it was not measured."""


def final(series: Series, *, share: float = FINAL_SHARE) -> float:
    """Mean over the last part of a run: less noisy than its last value alone.

    Args:
        series: One metric of a run against agent steps.
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


def return_at(run: Run, match: Match, axis: Axis | None = None) -> float:
    """Return of a run as if it had ended at the common point; NaN if it got no further.

    The mean over the last part before that point, as ``final`` takes it of a whole run. Between
    two evaluations the return is interpolated linearly on the axis, so that runs with the same
    curve have the same return wherever they were evaluated.

    Args:
        run: The run whose evaluations are read.
        match: Where it is read.
        axis: On which axis; on that of the comparison unless given.

    Returns:
        The return.
    """
    return _value_at(run, "eval/return_mean", match, axis or match.axis)


def score_at(run: Run, match: Match) -> float:
    """Normalised score of a run, read where ``return_at`` reads its return."""
    return _value_at(run, "eval/normalised_score", match, match.axis)


def _value_at(run: Run, name: str, match: Match, axis: Axis) -> float:
    places, series = match.places[axis], evaluated(run, name, axis)
    if not _reaches(series, places[-1]):
        return np.nan
    return float(np.interp(places, series.steps, series.values).mean())


def area_until(run: Run, match: Match) -> float:
    """Mean height of the returns up to the common point, interpolated there; NaN if not reached."""
    series = returns_of(run, match.axis)
    return area_under_curve(series.until(match.point)) if _reaches(series, match.point) else np.nan


def _reaches(series: Series, point: float) -> bool:
    """A run that ended before the point would look unfinished there."""
    return len(series.steps) > 0 and bool(series.steps[-1] >= point)


def _final_of(name: str) -> Callable[[Run, Match], float]:
    def measure(run: Run, match: Match) -> float:
        series = run.series(name)
        # What was measured at the start alone is of no training.
        return final(series, share=match.share) if series.steps.any() else np.nan

    return measure


def _mean_of(name: str) -> Callable[[Run, Match], float]:
    def measure(run: Run, _: Match) -> float:
        values = run.series(name).values
        return float(values.mean()) if len(values) > 0 else np.nan

    return measure


def _mean_speed(run: Run, _: Match) -> float:
    """Steps over seconds of the whole run: the fast random start weighs what it lasted."""
    speed = run.series("time/steps_per_second")
    made = speed.values > 0.0  # none in the row that a resume writes before its first step
    steps = np.diff(speed.steps, prepend=0)[made]
    return float(steps.sum() / (steps / speed.values[made]).sum()) if steps.any() else np.nan


COLUMNS = (
    Column("final_return", "final return", _final_of("eval/return_mean")),
    Column("return_at_common_point", "return at the common point", return_at),
    Column(
        "return_at_equal_evaluations",
        "return at equal gradient evaluations",
        lambda run, match: return_at(run, match, "evaluations"),
    ),
    Column("area_under_curve", "area under curve (mean return)", area_until),
    Column("normalised_score", "normalised score at the common point", score_at),
    Column("success_rate", "success rate", _final_of("eval/success_rate")),
    *(
        Column(key, title, _final_of(f"probe/{name}"))
        for key, title, name in (
            ("value_rmse_normalised", "value error (NRMSE)", "value/rmse_normalised"),
            ("value_rmse", "value error (RMSE, units of return)", "value/rmse"),
            ("value_bias", "value bias (units of return)", "value/bias"),
            ("lambda_max", "sharpness (largest eigenvalue)", "sharpness/lambda_max"),
            ("sam_gap", "SAM gap", "sharpness/sam_gap"),
            ("adaptive_sharpness", "adaptive sharpness", "sharpness/adaptive_sharpness"),
            ("param_norm", "norm of weights", "sharpness/param_norm"),
            ("loss_gap", "held-out minus training loss", "rollout/loss_gap"),
        )
    ),
    Column(
        "evaluations_per_update", "gradient evaluations per update", _mean_of("optim/evaluations")
    ),
    Column("steps_per_second", "steps per second", _mean_speed),
    Column("wall_hours", "wall time (h)", lambda run, _: run.wall_seconds / 3600),
)
