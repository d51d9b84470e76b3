"""Everything a report shows, computed once from the folders that the user named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mbrl_flat.analysis.stats import Interval, Statistic, iqm, mean, median
from mbrl_flat.compare.axes import Axis
from mbrl_flat.compare.charts import Chart, build_charts, build_scatters
from mbrl_flat.compare.columns import FINAL_SHARE
from mbrl_flat.compare.curves import ScatterData
from mbrl_flat.compare.groups import (
    Group,
    GroupStyle,
    comparability_notes,
    differing_settings,
    group_runs,
    group_styles,
)
from mbrl_flat.compare.normalise import with_normalised_scores
from mbrl_flat.compare.runs import Run
from mbrl_flat.compare.summary import (
    GroupSummary,
    aggregate_over_tasks,
    improvement_over_tasks,
    summarize_groups,
)
from mbrl_flat.compare.svg import line_chart, scatter_chart
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.evaluation.reference_scores import ReferenceScore, is_task, load_references

STATISTICS: Mapping[str, Statistic] = {"mean": mean, "iqm": iqm, "median": median}


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """What the page, the tables and the figures are made of.

    Attributes:
        runs: All runs that are shown.
        rows: One a group.
        styles: How each group is drawn, by its label.
        notes: What a reader must know before comparing.
        charts: Curves by figure.
        scatters: Sharpness against what it may explain, with the task.
        aggregate: Interquartile mean of normalised scores by label, over ``aggregate_tasks``.
        aggregate_tasks: Tasks that every label has.
        improvement: Probability of improvement over the baseline by label, averaged over these.
        scales: What 0 and 1 of a normalised score are, in words by task.
        settings: Settings that differ, as text for each run.
        references: Published scores that were asked for, on these tasks.
        axis: Unit of the x axis.
        statistic: How seeds are put together in the table.
        last: How much of a run, from its end, its final values are means over.
    """

    runs: tuple[Run, ...]
    rows: tuple[GroupSummary, ...]
    styles: Mapping[str, GroupStyle]
    notes: tuple[str, ...]
    charts: Mapping[str, list[Chart]]
    scatters: tuple[tuple[str, ScatterData], ...]
    aggregate: Mapping[str, Interval]
    aggregate_tasks: tuple[str, ...]
    improvement: Mapping[str, float]
    scales: Mapping[str, str]
    settings: Mapping[str, list[str]]
    references: tuple[ReferenceScore, ...]
    axis: Axis
    statistic: str
    last: float

    @cached_property
    def curves_drawn(self) -> Mapping[str, list[str]]:
        """The ``svg`` element of every chart: the page and the files show the same."""
        return {
            figure: [line_chart(chart, self.styles) for chart in charts]
            for figure, charts in self.charts.items()
        }

    @cached_property
    def scatters_drawn(self) -> list[str]:
        """The ``svg`` element of every scatter."""
        return [scatter_chart(found, self.styles) for _, found in self.scatters]


def compare_runs(
    runs: Sequence[Run],
    *,
    baseline: str | None = None,
    axis: Axis = "steps",
    statistic: str = "mean",
    references: Sequence[str] = (),
    by: Sequence[str] = (),
    expert: str | None = None,
    last: float = FINAL_SHARE,
    seed: int = 0,
) -> RunComparison:
    """Compare runs.

    Args:
        runs: At least one.
        baseline: Optimizer or full label that the others are compared with; adam unless given.
        axis: Unit of the x axis.
        statistic: How seeds are put together: ``mean``, ``iqm`` or ``median``.
        references: Published methods to overlay.
        by: Settings that alone tell groups apart; without them, all that differ.
        expert: Published method whose score is 1 on the normalised scale.
        last: How much of a run, from its end, its final values are means over.
        seed: Of the bootstrap: the same runs give the same report.

    Returns:
        The comparison.
    """
    _check(statistic, last, [*references, *([expert] if expert is not None else [])])
    runs, scales = with_normalised_scores(runs, expert=expert)
    rng = np.random.default_rng(seed)
    groups, notes = group_runs(runs, by=by)
    baselines = choose_baselines(groups, baseline)
    groups.sort(key=lambda group: (group.task, baselines.get(group.task) is not group))
    score = STATISTICS[statistic]
    rows = summarize_groups(
        groups, statistic=score, baselines=baselines, rng=rng, axis=axis, last=last
    )
    aggregate, tasks = aggregate_over_tasks(rows, rng=rng)
    members = tuple(run for group in groups for run in group.runs)
    return RunComparison(
        runs=members,
        rows=tuple(rows),
        styles=group_styles(groups),
        notes=(*notes, *_without_baseline(groups, baselines), *comparability_notes(groups)),
        charts=build_charts(groups, axis=axis, references=references, rng=rng),
        scatters=tuple(build_scatters(groups, last=last)),
        aggregate=aggregate,
        aggregate_tasks=tuple(tasks),
        improvement=improvement_over_tasks(rows, tasks),
        scales=scales,
        settings=differing_settings(members),
        references=_references(references, members),
        axis=axis,
        statistic=statistic,
        last=last,
    )


def _check(statistic: str, last: float, methods: Sequence[str]) -> None:
    """Refuse what the user can correct."""
    if not 0.0 < last <= 1.0:
        raise UserError(f"--last is a share of a run, above 0 and at most 1, not {last:g}.")
    if statistic not in STATISTICS:
        raise UnknownNameError("statistic", statistic, STATISTICS)
    known = {score.method for score in load_references()}
    for method in methods:
        if method not in known:
            raise UnknownNameError("reference", method, known)


def _references(methods: Sequence[str], runs: Sequence[Run]) -> tuple[ReferenceScore, ...]:
    """Published scores of these methods on the tasks of the runs."""
    tasks = {run.task_key for run in runs}
    return tuple(
        score
        for score in load_references()
        if score.method in methods
        and any(is_task(score, env=env, task=task) for env, task in tasks)
    )


def _without_baseline(groups: Sequence[Group], baselines: Mapping[str, Group]) -> list[str]:
    tasks = dict.fromkeys(group.task for group in groups)
    return [
        f"{task}: no run of the baseline, so there are no differences to it."
        for task in tasks
        if task not in baselines
    ]


def choose_baselines(groups: Sequence[Group], wanted: str | None) -> dict[str, Group]:
    """Choose the baseline of each task.

    Args:
        groups: Groups of runs, one for each setting and task.
        wanted: Optimizer or label; without it adam, or else the first group of a task.

    Returns:
        Group by task; a task without the one that was asked for has none.

    Raises:
        UserError: If what was asked for names several groups of one task.
        UnknownNameError: If no task has it.
    """
    chosen: dict[str, Group] = {}
    for task in dict.fromkeys(group.task for group in groups):
        members = [group for group in groups if group.task == task]
        name = wanted or "adam"
        matches = [group for group in members if group.label == name]
        matches = matches or [group for group in members if group.optimizer == name]
        if wanted is not None and len(matches) > 1:
            labels = " or ".join(repr(group.label) for group in matches)
            raise UserError(f"--baseline {wanted} means several groups on {task}: say {labels}.")
        if matches:
            chosen[task] = matches[0]
        elif wanted is None:
            chosen[task] = members[0]
    if wanted is not None and not chosen:
        raise UnknownNameError("baseline", wanted, {group.label for group in groups})
    return chosen
