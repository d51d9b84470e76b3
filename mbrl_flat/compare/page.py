"""The report as one HTML file that needs nothing else: no network, no other file."""

import math
from collections.abc import Sequence
from html import escape

from mbrl_flat.compare.assets import SCRIPT, STYLE
from mbrl_flat.compare.charts import LOGARITHMIC, TITLES, Chart, describe_correlation
from mbrl_flat.compare.comparison import Comparison
from mbrl_flat.compare.summary import Column, Row, present_columns
from mbrl_flat.compare.svg import line_chart, scatter_chart
from mbrl_flat.compare.tables import describe_versus, format_number
from mbrl_flat.stats import Interval

_HEADINGS = {
    "return": "Learning curves",
    "value_error": "Value error",
    "sharpness": "Sharpness",
}


def render_page(comparison: Comparison, *, title: str) -> str:
    """Render the page.

    Args:
        comparison: What it shows.
        title: Its heading.

    Returns:
        A complete HTML document.
    """
    sections = [
        _head(comparison, title),
        _legend(comparison),
        _notes(comparison),
        _summary(comparison),
        _aggregate(comparison),
        *(_curves(comparison, picture) for picture in _HEADINGS),
        _scatters(comparison),
        _settings(comparison),
        _references(comparison),
        _runs(comparison),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><main>{"".join(sections)}</main><div id="tip" class="off"></div>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _head(comparison: Comparison, title: str) -> str:
    tasks = len({row.group.task for row in comparison.rows})
    return (
        f"<h1>{escape(title)}</h1><p>{_count(len(comparison.runs), 'run')} in "
        f"{_count(len(comparison.rows), 'group')} on {_count(tasks, 'task')}. "
        f"Estimates are the {comparison.statistic} over seeds, brackets and bands are 95% "
        "bootstrap intervals over seeds; with few seeds these are too narrow. Final values are "
        "means over the last tenth of a run.</p>"
    )


def _legend(comparison: Comparison) -> str:
    buttons = [
        f'<button data-group="{color}" aria-pressed="true">{_swatch(label, comparison)}</button>'
        for label, color in comparison.colors.items()
    ]
    return f"<nav>{''.join(buttons)}</nav>"


def _notes(comparison: Comparison) -> str:
    if not comparison.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return f'<div class="card notes"><h3>Before you compare</h3><ul>{items}</ul></div>'


def _summary(comparison: Comparison) -> str:
    columns = present_columns(comparison.rows)
    heads = ["group", "task", "seeds", *(column.title for column in columns)]
    heads += ["difference to baseline (pairs)", "P(improvement)"]
    body = [_summary_row(comparison, row, columns) for row in comparison.rows]
    return "<h2>Results</h2>" + _table(heads, body, kind="sortable")


def _summary_row(comparison: Comparison, row: Row, columns: Sequence[Column]) -> str:
    color = comparison.colors[row.group.label]
    cells = [
        f"<td>{_swatch(row.group.label, comparison)}</td>",
        f"<td>{escape(row.group.task)}</td>",
        f"<td>{len(row.group.runs)}</td>",
    ]
    # Runs of unequal length have a winner at the step that all reached, not at their own ends.
    keys = {column.key for column in columns}
    ranked = "return_at_common_step" if "return_at_common_step" in keys else "final_return"
    for column in columns:
        cell = row.cells[column.key]
        best = column.key == ranked
        mark = ' class="best"' if best and _is_best(comparison, row, column) else ""
        cells.append(_interval_cell(cell.interval, len(cell.by_seed), len(row.group.runs), mark))
    difference, improvement = describe_versus(row.versus)
    value = row.versus.difference.point if row.versus is not None else 0.0
    cells.append(f'<td data-value="{_sortable(value)}">{escape(difference)}</td>')
    cells.append(f"<td>{escape(improvement)}</td>")
    return f'<tr class="g{color}">{"".join(cells)}</tr>'


def _interval_cell(interval: Interval, seeds: int, runs: int, mark: str = "") -> str:
    """The estimate with its bounds below; says so where not every run has the number."""
    small = ""
    if math.isfinite(interval.low):
        small = f"<small>{format_number(interval.low)} to {format_number(interval.high)}</small>"
    if 0 < seeds < runs:
        small += f"<small>{seeds} of {runs} seeds</small>"
    text = format_number(interval.point)
    return f'<td{mark} data-value="{_sortable(interval.point)}">{text}{small}</td>'


def _is_best(comparison: Comparison, row: Row, column: Column) -> bool:
    points = [
        other.cells[column.key].interval.point
        for other in comparison.rows
        if other.group.task == row.group.task
    ]
    known = [point for point in points if math.isfinite(point)]
    return len(known) > 1 and row.cells[column.key].interval.point == max(known)


def _aggregate(comparison: Comparison) -> str:
    if not comparison.aggregate:
        return ""
    body = [
        f'<tr class="g{comparison.colors[label]}"><td>{_swatch(label, comparison)}</td>'
        f"{_interval_cell(interval, 0, 0)}</tr>"
        for label, interval in comparison.aggregate.items()
    ]
    tasks = ", ".join(comparison.aggregate_tasks)
    return (
        "<h2>Over tasks</h2><p>Interquartile mean of normalised scores with stratified bootstrap "
        f"intervals (arXiv:2108.13264) over the tasks that every group has: {escape(tasks)}.</p>"
        + _table(["group", "normalised score"], body, kind="sortable")
    )


def _curves(comparison: Comparison, picture: str) -> str:
    charts = comparison.charts.get(picture, [])
    if not charts:
        return ""
    cards = "".join(_chart_card(chart, comparison.axis) for chart in charts)
    return f'<h2>{_HEADINGS[picture]}</h2><div class="charts">{cards}</div>'


def _chart_card(chart: Chart, axis: str) -> str:
    svg = line_chart(
        chart.curves,
        colors=chart.colors,
        x_title=axis,
        y_title=TITLES[chart.metric],
        baseline=chart.baseline,
        may_be_log=chart.metric in LOGARITHMIC,
    )
    extra = ""
    if chart.baseline is not None:
        extra = f"<p>Dashed line: random policy, {format_number(chart.baseline)}.</p>"
    return f'<div class="card"><h3>{escape(chart.task)}</h3>{svg}{extra}</div>'


def _scatters(comparison: Comparison) -> str:
    if not comparison.clouds:
        return ""
    cards = [
        f'<div class="card"><h3>{escape(task)}: {describe_correlation(cloud)}</h3>'
        + scatter_chart(
            cloud,
            colors=dict(comparison.colors),
            x_title=TITLES[cloud.x_name],
            y_title=TITLES[cloud.y_name],
        )
        + "</div>"
        for task, cloud in comparison.clouds
    ]
    return (
        "<h2>Does sharpness go with return and value error?</h2><p>One dot a run, at its end. A "
        "rank correlation over seeds and settings is no proof of a cause.</p>"
        f'<div class="charts">{"".join(cards)}</div>'
    )


def _settings(comparison: Comparison) -> str:
    if not comparison.settings:
        return ""
    heads = ["run", *comparison.settings]
    columns = [[run.folder.name for run in comparison.runs], *comparison.settings.values()]
    body = [
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
        for row in zip(*columns, strict=True)
    ]
    return "<h2>Settings that differ</h2>" + _table(heads, body, kind="words")


def _references(comparison: Comparison) -> str:
    if not comparison.references:
        return ""
    body = [
        f"<tr><td>{escape(score.method)}</td><td>{escape(score.task)}</td><td>{score.frame:,}</td>"
        f"<td>{format_number(score.mean)}</td><td>{format_number(score.std)}</td>"
        f"<td>{score.seeds or '-'}</td><td>{escape(score.source)}</td></tr>"
        for score in comparison.references
    ]
    heads = ["method", "task", "frames", "mean return", "std over seeds", "seeds", "source"]
    return "<h2>Published scores</h2>" + _table(heads, body, kind="words")


def _runs(comparison: Comparison) -> str:
    body = [
        f"<tr><td>{escape(run.folder.name)}</td><td>{escape(run.names['task'])}</td>"
        f"<td>{run.seed}</td><td>{format_number(run.last_evaluation)}</td>"
        f"<td>{format_number(run.action_repeat)}</td>"
        f"<td>{escape(str(run.environment.get('git_revision') or '-')[:10])}</td></tr>"
        for run in comparison.runs
    ]
    heads = ["run", "task", "seed", "last evaluated step", "frames in a step", "revision"]
    return "<h2>Runs</h2>" + _table(heads, body, kind="words")


def _swatch(label: str, comparison: Comparison) -> str:
    """A dot in the colour of a group, and its label."""
    color = comparison.colors[label] % 8
    return f'<span class="c{color}"><span class="swatch"></span></span>{escape(label)}'


def _table(heads: Sequence[str], body: Sequence[str], *, kind: str) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return (
        f'<div class="card scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _sortable(value: float) -> str:
    """Number for the page's sorting; what was not measured goes below everything."""
    return repr(float(value)) if math.isfinite(value) else "-1e308"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
