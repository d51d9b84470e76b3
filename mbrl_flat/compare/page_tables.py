"""The tables of the page: results, aggregates, settings, published scores, runs."""

import math
from collections.abc import Sequence
from html import escape

from mbrl_flat.analysis.stats import Interval
from mbrl_flat.compare.columns import Column
from mbrl_flat.compare.comparison import RunComparison
from mbrl_flat.compare.runs import task_names
from mbrl_flat.compare.summary import GroupSummary, Versus, present_columns
from mbrl_flat.compare.svg import color_classes
from mbrl_flat.compare.tables import format_number, head, versus_heads, versus_texts


def lead_table(comparison: RunComparison) -> str:
    """Returns with their intervals drawn, and each group against the baseline of its task."""
    columns = present_columns(comparison.rows)
    column = next((column for column in columns if column.key == ranked_key(columns)), None)
    if column is None:
        return ""
    heads = ["group", "task", "seeds", head(column, comparison.rows), "95% interval"]
    heads += versus_heads(columns)
    body = []
    for row in comparison.rows:
        cell = row.cells[column.key]
        mark = ' class="best"' if _is_best(comparison, row, column) else ""
        cells = [
            *_identity(comparison, row),
            _interval_cell(cell.interval, len(cell.by_seed), len(row.group.seeds), mark),
            f"<td>{_bar(cell.interval, _extent(comparison, row, column), comparison, row)}</td>",
            *_versus(row, columns),
        ]
        body.append(_tr(comparison, row, cells))
    return "<h2>Returns</h2>" + table(heads, body, kind="sortable")


def results_table(comparison: RunComparison) -> str:
    """Every column, folded away."""
    columns = present_columns(comparison.rows)
    heads = ["group", "task", "seeds", *(head(column, comparison.rows) for column in columns)]
    body = []
    for row in comparison.rows:
        cells = [*_identity(comparison, row)]
        for column in columns:
            cell = row.cells[column.key]
            cells.append(_interval_cell(cell.interval, len(cell.by_seed), len(row.group.seeds)))
        body.append(_tr(comparison, row, cells))
    scales = "; ".join(f"{task}: {words}" for task, words in comparison.scales.items())
    return (
        "<h2>All numbers</h2>"
        + table(heads, body, kind="sortable")
        + f"<p>Normalised scores are {escape(scales)}.</p>"
    )


def ranked_key(columns: Sequence[Column]) -> str:
    """Runs of unequal length have a winner at the point that all reached, not at their own ends."""
    keys = {column.key for column in columns}
    return "return_at_common_point" if "return_at_common_point" in keys else "final_return"


def aggregate_table(comparison: RunComparison) -> str:
    """Interquartile means of normalised scores over tasks."""
    if not comparison.aggregate:
        return ""
    body = [
        f'<tr class="g{comparison.colors[label]}"><td>{swatch(label, comparison)}</td>'
        f"{_interval_cell(interval, 0, 0)}"
        f"<td>{format_number(comparison.improvement.get(label, math.nan))}</td></tr>"
        for label, interval in comparison.aggregate.items()
    ]
    tasks = ", ".join(comparison.aggregate_tasks)
    return (
        "<h2>Over tasks</h2><p>Interquartile mean of normalised scores with stratified bootstrap "
        "intervals, and the probability of improvement over the baseline averaged over tasks, both "
        "at the common point of each task "
        f"(arXiv:2108.13264), for the tasks that every group has: {escape(tasks)}.</p>"
        + table(["group", "normalised score", "P(improvement)"], body, kind="sortable")
    )


def settings_table(comparison: RunComparison) -> str:
    """Settings that are not the same in all runs."""
    if not comparison.settings:
        return ""
    heads = ["run", *comparison.settings]
    columns = [[run.folder.name for run in comparison.runs], *comparison.settings.values()]
    body = [
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
        for row in zip(*columns, strict=True)
    ]
    return folded("Settings that differ", table(heads, body, kind="words"))


def references_table(comparison: RunComparison) -> str:
    """Published scores with their sources."""
    if not comparison.references:
        return ""
    body = [
        f"<tr><td>{escape(score.method)}</td><td>{escape(score.task)}</td><td>{score.frame:,}</td>"
        f"<td>{format_number(score.mean)}</td><td>{format_number(score.std)}</td>"
        f"<td>{score.seeds or '-'}</td><td>{escape(score.source)}</td></tr>"
        for score in comparison.references
    ]
    heads = ["method", "task", "frames", "mean return", "std over seeds", "seeds", "source"]
    return folded("Published scores", table(heads, body, kind="words"))


def runs_table(comparison: RunComparison) -> str:
    """Every run with how far it went."""
    tasks = task_names(comparison.runs)
    body = [
        f"<tr><td>{escape(run.folder.name)}</td><td>{escape(tasks[run.task_key])}</td>"
        f"<td>{run.seed}</td><td>{format_number(run.last_evaluation)}</td>"
        f"<td>{format_number(run.action_repeat)}</td>"
        f"<td>{escape(str(run.environment.get('git_revision') or '-')[:10])}</td></tr>"
        for run in comparison.runs
    ]
    heads = ["run", "task", "seed", "last evaluated step", "frames in a step", "revision"]
    return folded("Runs", table(heads, body, kind="words"))


def swatch(label: str, comparison: RunComparison) -> str:
    """A dot in the colour of a group, and its label."""
    classes = color_classes(comparison.colors[label])
    return f'<span class="{classes}"><span class="swatch"></span></span>{escape(label)}'


def table(heads: Sequence[str], body: Sequence[str], *, kind: str) -> str:
    """A table in a card that scrolls sideways on small screens."""
    titles = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return (
        f'<div class="card scroll"><table class="{kind}"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def folded(title: str, content: str) -> str:
    """A section that is closed until it is asked for."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _tr(comparison: RunComparison, row: GroupSummary, cells: Sequence[str]) -> str:
    return f'<tr class="g{comparison.colors[row.group.label]}">{"".join(cells)}</tr>'


def _identity(comparison: RunComparison, row: GroupSummary) -> list[str]:
    return [
        f"<td>{swatch(row.group.label, comparison)}</td>",
        f"<td>{escape(row.group.task)}</td>",
        f"<td>{len(row.group.seeds)}</td>",
    ]


def _versus(row: GroupSummary, columns: Sequence[Column]) -> list[str]:
    texts = versus_texts(row, columns)
    numbers = [_versus_numbers(row, row.versus), _versus_numbers(row, row.versus_compute)]
    values = [number for pair in numbers for number in pair][: len(texts)]
    return [
        f'<td data-value="{_sortable(value)}">{escape(text)}</td>'
        for text, value in zip(texts, values, strict=True)
    ]


def _versus_numbers(row: GroupSummary, versus: Versus | None) -> tuple[float, float]:
    if versus is None:
        return (0.0, 0.5) if row.is_baseline else (math.nan, math.nan)
    return versus.difference.point, versus.improvement


def _interval_cell(interval: Interval, seeds: int, of: int, mark: str = "") -> str:
    """The estimate with its bounds below; says so where not every seed has the number."""
    small = ""
    if math.isfinite(interval.low):
        small = f"<small>{format_number(interval.low)} to {format_number(interval.high)}</small>"
    if 0 < seeds < of:
        small += f"<small>{seeds} of {of} seeds</small>"
    text = format_number(interval.point)
    return f'<td{mark} data-value="{_sortable(interval.point)}">{text}{small}</td>'


def _extent(comparison: RunComparison, row: GroupSummary, column: Column) -> tuple[float, float]:
    """Smallest and largest number that the bars of a task have to show."""
    numbers = [
        number
        for other in comparison.rows
        if other.group.task == row.group.task
        for number in other.cells[column.key].interval
        if math.isfinite(number)
    ]
    return (min(numbers), max(numbers)) if numbers else (0.0, 1.0)


def _bar(
    interval: Interval, extent: tuple[float, float], comparison: RunComparison, row: GroupSummary
) -> str:
    """The interval as a bar with a dot, on the scale of its task."""
    if not math.isfinite(interval.point):
        return ""
    low, high = extent
    width = (high - low) or 1.0
    point = 5.0 + 120.0 * (interval.point - low) / width
    parts = [f'<circle cx="{point:.1f}" cy="8" r="4"/>']
    if math.isfinite(interval.low):
        ends = [5.0 + 120.0 * (end - low) / width for end in (interval.low, interval.high)]
        parts.append(f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="8" y2="8"/>')
    color = comparison.colors[row.group.label] % 8
    return (
        f'<svg class="bar c{color}" viewBox="0 0 130 16" role="img" aria-label="interval">'
        f"{''.join(parts)}</svg>"
    )


def _is_best(comparison: RunComparison, row: GroupSummary, column: Column) -> bool:
    points = [
        other.cells[column.key].interval.point
        for other in comparison.rows
        if other.group.task == row.group.task
    ]
    known = [point for point in points if math.isfinite(point)]
    return len(known) > 1 and row.cells[column.key].interval.point == max(known)


def _sortable(value: float) -> str:
    """Number for the page's sorting; what was not measured goes below everything."""
    return repr(float(value)) if math.isfinite(value) else "-1e308"
