"""The report as one HTML file that needs nothing else: no network, no other file."""

from html import escape

from mbrl_flat.compare.assets import SCRIPT, STYLE
from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.charts import LOGARITHMIC, TITLES, Chart, describe_correlation
from mbrl_flat.compare.comparison import RunComparison
from mbrl_flat.compare.page_tables import (
    aggregate_table,
    lead_table,
    references_table,
    results_table,
    runs_table,
    settings_table,
    swatch,
)
from mbrl_flat.compare.svg import line_chart, scatter_chart
from mbrl_flat.compare.tables import format_number

_HEADINGS = {
    "return": ("Learning curves", ""),
    "compute": (
        "Returns against what they cost",
        "The same returns by gradient evaluations (two a step for SAM) and by training hours: "
        "what a method gets from equal compute.",
    ),
    "value_error": ("Value error", ""),
    "sharpness": ("Sharpness", ""),
    "rollout": ("Model error on held-out episodes", ""),
    "bounds": ("Bounds and what they bound", ""),
}


def render_page(comparison: RunComparison, *, title: str) -> str:
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
        lead_table(comparison),
        *(_curves(comparison, figure) for figure in _HEADINGS),
        _scatters(comparison),
        aggregate_table(comparison),
        results_table(comparison),
        references_table(comparison),
        settings_table(comparison),
        runs_table(comparison),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><main>{"".join(sections)}</main><div id="tip" class="off"></div>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _head(comparison: RunComparison, title: str) -> str:
    tasks = len({row.group.task for row in comparison.rows})
    return (
        f"<header><h1>{escape(title)}</h1>"
        '<button id="theme" aria-label="light or dark">Light / dark</button></header>'
        f"<p>{_count(len(comparison.runs), 'run')} in "
        f"{_count(len(comparison.rows), 'group')} on {_count(tasks, 'task')}, matched in "
        f"{AXES[comparison.axis]}. "
        f"Estimates are the {comparison.statistic} over seeds, differences to the baseline means "
        "over pairs of one seed, brackets and bands are 95% "
        "bootstrap intervals over seeds; with few seeds these are too narrow. Final values are "
        f"means over the last {100 * comparison.last:g}% of a run; returns and areas at a common "
        "point are interpolated linearly between a run's evaluations, so that all runs are read "
        "at the same places.</p>"
    )


def _legend(comparison: RunComparison) -> str:
    buttons = [
        f'<button data-group="{color}" aria-pressed="true">{swatch(label, comparison)}</button>'
        for label, color in comparison.colors.items()
    ]
    return f"<nav>{''.join(buttons)}</nav>"


def _notes(comparison: RunComparison) -> str:
    if not comparison.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return f'<div class="card notes"><h3>Before you compare</h3><ul>{items}</ul></div>'


def _curves(comparison: RunComparison, figure: str) -> str:
    charts = comparison.charts.get(figure, [])
    if not charts:
        return ""
    heading, text = _HEADINGS[figure]
    cards = "".join(_chart_card(chart) for chart in charts)
    words = f"<p>{text}</p>" if text else ""
    return f'<h2>{heading}</h2>{words}<div class="charts">{cards}</div>'


def _chart_card(chart: Chart) -> str:
    svg = line_chart(
        chart.curves,
        colors=chart.colors,
        x_title=AXES[chart.axis],
        y_title=TITLES[chart.metric],
        baseline=chart.baseline,
        may_be_log=chart.metric in LOGARITHMIC,
    )
    extra = ""
    if chart.baseline is not None:
        extra = f"<p>Dashed line: random policy, {format_number(chart.baseline)}.</p>"
    return f'<div class="card"><h3>{escape(chart.task)}</h3>{svg}{extra}</div>'


def _scatters(comparison: RunComparison) -> str:
    if not comparison.scatters:
        return ""
    cards = [
        f'<div class="card"><h3>{escape(task)}: {describe_correlation(scatter)}</h3>'
        + scatter_chart(
            scatter,
            colors=dict(comparison.colors),
            x_title=TITLES[scatter.x_name],
            y_title=TITLES[scatter.y_name],
        )
        + "</div>"
        for task, scatter in comparison.scatters
    ]
    return (
        "<h2>Do sharpness and value error go with return?</h2><p>One dot a run, at its end. A "
        "rank correlation over seeds and settings is no proof of a cause.</p>"
        f'<div class="charts">{"".join(cards)}</div>'
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
