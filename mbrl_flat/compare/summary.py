"""Numbers of the table: one value a seed, then an estimate with its interval over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mbrl_flat.compare.groups import Group
from mbrl_flat.compare.runs import EMPTY, Run, Series
from mbrl_flat.stats import (
    Interval,
    Statistic,
    iqm,
    mean,
    paired_differences,
    probability_of_improvement,
    stratified_bootstrap,
)

_FINAL_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table.

    Attributes:
        key: Its name in ``table.csv``.
        title: Its name for people, with the unit.
        measure: Reduces a run, seen up to a step, to a number; NaN if it was not measured.
    """

    key: str
    title: str
    measure: Callable[[Run, float], float]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table: by seed, and over seeds."""

    by_seed: Mapping[int, float]
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Versus:
    """A group against the baseline of its task, over the seeds that both have.

    Attributes:
        difference: Mean difference of the returns at the common step.
        seeds: How many pairs.
        improvement: Chance that a run beats one of the baseline, over all seeds of both.
    """

    difference: Interval
    seeds: int
    improvement: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A group with its numbers; ``versus`` is ``None`` for the baseline itself."""

    group: Group
    common_step: float
    cells: Mapping[str, Cell]
    versus: Versus | None


def final(series: Series, *, share: float = _FINAL_SHARE) -> float:
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
    height = (series.values[1:] + series.values[:-1]) / 2.0
    return float((width * height).sum() / width.sum())


def _final_of(name: str) -> Callable[[Run, float], float]:
    return lambda run, _: final(run.series(name))


def _mean_of(name: str) -> Callable[[Run, float], float]:
    def measure(run: Run, _: float) -> float:
        values = run.series(name).values
        return float(values.mean()) if len(values) > 0 else np.nan

    return measure


def return_at(run: Run, step: float) -> float:
    """Final return of a run as if it had ended at ``step``; NaN if it never got there."""
    return final(_returns_until(run, step))


def _returns_until(run: Run, step: float) -> Series:
    """Evaluations up to ``step``; none of a run that ended before, which would look unfinished."""
    return run.series("eval/return_mean").until(step) if run.last_evaluation >= step else EMPTY


COLUMNS = (
    Column(key="final_return", title="final return", measure=_final_of("eval/return_mean")),
    Column(key="return_at_common_step", title="return at common step", measure=return_at),
    Column(
        key="area_under_curve",
        title="area under curve (mean return)",
        measure=lambda run, step: area_under_curve(_returns_until(run, step)),
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
        key="evaluations_per_update",
        title="gradient evaluations per update",
        measure=_mean_of("optim/evaluations"),
    ),
    Column(
        key="steps_per_second", title="steps per second", measure=_mean_of("time/steps_per_second")
    ),
    Column(key="wall_hours", title="wall time (h)", measure=lambda run, _: run.wall_seconds / 3600),
)


def common_step(groups: Sequence[Group]) -> float:
    """Last step that every run evaluated; runs not yet evaluated after their start do not count.

    Args:
        groups: All groups of one task.

    Returns:
        The step, NaN if no run was evaluated.
    """
    ends = [run.last_evaluation for group in groups for run in group.runs]
    begun = [end for end in ends if end > 0]
    return min(begun) if begun else np.nan


def summarize_groups(
    groups: Sequence[Group],
    *,
    statistic: Statistic,
    baselines: Mapping[str, Group],
    rng: np.random.Generator,
) -> list[Row]:
    """Reduce groups to rows of the table.

    Args:
        groups: All groups.
        statistic: How seeds are put together.
        baselines: What the groups of a task are held against.
        rng: Source of the bootstrap.

    Returns:
        One row a group.
    """
    rows: list[Row] = []
    for group in groups:
        step = common_step([other for other in groups if other.task == group.task])
        cells = {
            column.key: _cell(group, column, step, statistic=statistic, rng=rng)
            for column in COLUMNS
        }
        baseline = baselines.get(group.task)
        versus = None
        if baseline is not None and baseline is not group:
            versus = compare_returns(group, baseline, step, rng=rng)
        rows.append(Row(group=group, common_step=step, cells=cells, versus=versus))
    return rows


def compare_returns(
    group: Group, baseline: Group, step: float, *, rng: np.random.Generator
) -> Versus:
    """Hold a group against a baseline at a step, seed by seed."""
    ours, theirs = _returns(group, step), _returns(baseline, step)
    paired = paired_differences(ours, theirs)
    difference = Interval(np.nan, np.nan, np.nan)
    if paired:
        difference = stratified_bootstrap([np.array([*paired.values()])], mean, rng=rng)
    improvement = np.nan
    if ours and theirs:
        improvement = probability_of_improvement(
            np.array([*ours.values()]), np.array([*theirs.values()])
        )
    return Versus(difference=difference, seeds=len(paired), improvement=improvement)


def present_columns(rows: Sequence[Row]) -> list[Column]:
    """Columns with a number in them; the common step is left out where all runs end there."""
    shown = [
        column
        for column in COLUMNS
        if any(np.isfinite(row.cells[column.key].interval.point) for row in rows)
    ]
    same = all(
        row.cells["final_return"].by_seed == row.cells["return_at_common_step"].by_seed
        for row in rows
    )
    return [column for column in shown if not (same and column.key == "return_at_common_step")]


def aggregate_over_tasks(
    rows: Sequence[Row], *, rng: np.random.Generator
) -> tuple[dict[str, Interval], list[str]]:
    """Interquartile mean of normalised scores over the tasks that every label has.

    Args:
        rows: The rows of the table.
        rng: Source of the stratified bootstrap.

    Returns:
        Interval by label, and the tasks; both empty with fewer than two such tasks.
    """
    scores: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        by_seed = row.cells["normalised_score"].by_seed
        if by_seed:
            scores.setdefault(row.group.label, {})[row.group.task] = np.array([*by_seed.values()])
    tasks = sorted(set.intersection(*({*by_task} for by_task in scores.values()))) if scores else []
    if len(tasks) < 2:
        return {}, []
    return {
        label: stratified_bootstrap([by_task[task] for task in tasks], iqm, rng=rng)
        for label, by_task in scores.items()
    }, tasks


def _returns(group: Group, step: float) -> dict[int, float]:
    returns = {run.seed: return_at(run, step) for run in group.runs}
    return {seed: value for seed, value in returns.items() if np.isfinite(value)}


def _cell(
    group: Group, column: Column, step: float, *, statistic: Statistic, rng: np.random.Generator
) -> Cell:
    by_seed = {run.seed: column.measure(run, step) for run in group.runs}
    by_seed = {seed: value for seed, value in by_seed.items() if np.isfinite(value)}
    if not by_seed:
        return Cell(by_seed={}, interval=Interval(np.nan, np.nan, np.nan))
    values = np.array([*by_seed.values()])
    return Cell(by_seed=by_seed, interval=stratified_bootstrap([values], statistic, rng=rng))
