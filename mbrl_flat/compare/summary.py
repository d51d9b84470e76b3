"""Numbers of the table: one value a seed, then an estimate with its interval over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mbrl_flat.analysis.stats import (
    Interval,
    Statistic,
    iqm,
    mean,
    paired_differences,
    probability_of_improvement,
    stratified_bootstrap,
)
from mbrl_flat.compare.axes import Axis
from mbrl_flat.compare.columns import (
    COLUMNS,
    FINAL_SHARE,
    MIN_SEEDS,
    Column,
    Match,
    match_runs,
    return_at,
)
from mbrl_flat.compare.groups import Group
from mbrl_flat.compare.runs import Run


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number of the table: by seed, and over seeds."""

    by_seed: Mapping[int, float]
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Versus:
    """A group against the baseline of its task, over the seeds that both have.

    Attributes:
        difference: Mean difference of the returns at the common point.
        seeds: How many pairs.
        improvement: Chance that a run beats one of the baseline, over all seeds of both; NaN where
            either has fewer than ``MIN_SEEDS``.
    """

    difference: Interval
    seeds: int
    improvement: float


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """A group with its numbers.

    Attributes:
        group: The group.
        match: Where runs of its task are compared.
        cells: Numbers by the key of their column.
        is_baseline: Whether it is the baseline of its task.
        versus: Against the baseline at the common point; ``None`` for the baseline itself, and
            where the task has none.
        versus_compute: The same at an equal number of gradient evaluations.
    """

    group: Group
    match: Match
    cells: Mapping[str, Estimate]
    is_baseline: bool
    versus: Versus | None
    versus_compute: Versus | None


def summarize_groups(
    groups: Sequence[Group],
    *,
    statistic: Statistic,
    baselines: Mapping[str, Group],
    rng: np.random.Generator,
    axis: Axis = "steps",
    last: float = FINAL_SHARE,
) -> list[GroupSummary]:
    """Reduce groups to rows of the table.

    Args:
        groups: Groups of runs, one for each setting and task.
        statistic: How seeds are put together.
        baselines: Baseline by task.
        rng: Source of the bootstrap.
        axis: What returns are matched in.
        last: How much of a run, from its end, its final values are means over.

    Returns:
        One row a group.
    """
    rows: list[GroupSummary] = []
    matches = {task: _match(groups, task, axis, last) for task in {g.task for g in groups}}
    for group in groups:
        match = matches[group.task]
        cells = {
            column.key: _cell(group, column, match, statistic=statistic, rng=rng)
            for column in COLUMNS
        }
        baseline = baselines.get(group.task)
        versus = versus_compute = None
        if baseline is not None and baseline is not group:
            versus = compare_returns(group, baseline, match, rng=rng)
            equal_compute = replace(match, axis="evaluations")
            versus_compute = compare_returns(group, baseline, equal_compute, rng=rng)
        row = GroupSummary(
            group=group,
            match=match,
            cells=cells,
            is_baseline=baseline is group,
            versus=versus,
            versus_compute=versus_compute,
        )
        rows.append(row)
    return rows


def _match(groups: Sequence[Group], task: str, axis: Axis, last: float) -> Match:
    runs = [run for group in groups if group.task == task for run in group.runs]
    return match_runs(runs, axis, share=last)


def compare_returns(
    group: Group, baseline: Group, match: Match, *, rng: np.random.Generator
) -> Versus:
    """Compare a group with a baseline at the common point, seed by seed."""
    ours, theirs = _returns(group, match), _returns(baseline, match)
    paired = paired_differences(ours, theirs)
    difference = Interval(np.nan, np.nan, np.nan)
    if paired:
        difference = stratified_bootstrap([np.array([*paired.values()])], mean, rng=rng)
    improvement = np.nan
    if min(len(ours), len(theirs)) >= MIN_SEEDS:
        improvement = probability_of_improvement(
            np.array([*ours.values()]), np.array([*theirs.values()])
        )
    return Versus(difference=difference, seeds=len(paired), improvement=improvement)


def present_columns(rows: Sequence[GroupSummary]) -> list[Column]:
    """Columns with a number in them that do not only repeat one before them."""
    shown = [
        column
        for column in COLUMNS
        if any(np.isfinite(row.cells[column.key].interval.point) for row in rows)
    ]
    repeated = {
        "return_at_common_point": "final_return",
        "return_at_equal_evaluations": "return_at_common_point",
    }
    return [
        column
        for column in shown
        if column.key not in repeated
        or any(
            row.cells[column.key].by_seed != row.cells[repeated[column.key]].by_seed for row in rows
        )
    ]


def aggregate_over_tasks(
    rows: Sequence[GroupSummary], *, rng: np.random.Generator
) -> tuple[dict[str, Interval], list[str]]:
    """Interquartile mean of normalised scores over the tasks that every label has.

    Scores are those at the common point of each task, as the probability of improvement is.

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


def improvement_over_tasks(rows: Sequence[GroupSummary], tasks: Sequence[str]) -> dict[str, float]:
    """Probability of improvement over the baseline by label, averaged over ``tasks`` (Sec. 4.3)."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.group.task in tasks and row.versus is not None:
            found.setdefault(row.group.label, []).append(row.versus.improvement)
    return {label: float(np.mean(values)) for label, values in found.items()}


def _returns(group: Group, match: Match) -> dict[int, float]:
    return _by_seed(group, lambda run: return_at(run, match))


def _by_seed(group: Group, measure: Callable[[Run], float]) -> dict[int, float]:
    """A number for each seed that has it; runs of one seed are averaged."""
    values: dict[int, list[float]] = {}
    for run in group.runs:
        value = measure(run)
        if np.isfinite(value):
            values.setdefault(run.seed, []).append(value)
    return {seed: float(np.mean(found)) for seed, found in values.items()}


def _cell(
    group: Group, column: Column, match: Match, *, statistic: Statistic, rng: np.random.Generator
) -> Estimate:
    by_seed = _by_seed(group, lambda run: column.measure(run, match))
    if not by_seed:
        return Estimate(by_seed={}, interval=Interval(np.nan, np.nan, np.nan))
    values = np.array([*by_seed.values()])
    return Estimate(by_seed=by_seed, interval=stratified_bootstrap([values], statistic, rng=rng))
