"""The report as one HTML file that needs nothing else: no network, no other file."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.charts import describe_correlation
from mbrl_flat.compare.columns import MIN_SEEDS, Column
from mbrl_flat.compare.comparison import RunComparison
from mbrl_flat.compare.runs import task_names
from mbrl_flat.compare.summary import GroupSummary, Versus, present_columns
from mbrl_flat.compare.svg import read_asset
from mbrl_flat.compare.tables import format_number, head, ranked_key, versus_heads, versus_texts

_ASSETS = {"page_css": "style.css", "chart_css": "chart.css", "script": "script.js"}
HEADINGS = {
    "return": ("Learning curves", ""),
    "compute": (
        "Returns against cost",
        "The same returns against gradient evaluations (two per update for SAM) and training "
        "hours: what a method gets from equal compute.",
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
    columns = present_columns(comparison.rows)
    lead = next((column for column in columns if column.key == ranked_key(columns)), None)
    environment = Environment(
        loader=PackageLoader("mbrl_flat.compare"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "number": format_number,
        "sortable": _sortable,
        "count": _count,
        "head_of": lambda column: head(column, comparison.rows),
    }
    environment.tests["finite"] = math.isfinite
    ends = {} if lead is None else _extents(comparison.rows, lead)
    best = {} if lead is None else _best(comparison.rows, lead)
    return (
        environment.get_template("page.html.jinja").render(
            c=comparison,
            title=title,
            axis=AXES[comparison.axis],
            num_tasks=len({row.group.task for row in comparison.rows}),
            min_seeds=MIN_SEEDS,
            lead=lead,
            columns=columns,
            head=lambda column: head(column, comparison.rows),
            versus_heads=versus_heads(columns),
            versus=lambda row: _versus(row, columns),
            is_best=lambda row: best.get(row.group.task) is row,
            place=lambda row, value: _place(value, *ends[row.group.task]),
            sections=[*_curves(comparison), *_scatters(comparison)],
            details=[*_details(comparison)],
            nan=math.nan,
            **{name: read_asset(file) for name, file in _ASSETS.items()},
        )
        + "\n"
    )


Card = tuple[str, str, str]
"""Title, chart and note."""


def _curves(comparison: RunComparison) -> Iterable[tuple[str, str, list[Card]]]:
    for figure, (heading, text) in HEADINGS.items():
        cards: list[Card] = []
        drawn = comparison.curves_drawn.get(figure, [])
        for chart, svg in zip(comparison.charts.get(figure, []), drawn, strict=True):
            note = ""
            if chart.baseline is not None:
                note = f"Dashed line: random policy, {format_number(chart.baseline)}."
            cards.append((chart.task, svg, note))
        if cards:
            yield heading, text, cards


def _scatters(comparison: RunComparison) -> Iterable[tuple[str, str, list[Card]]]:
    if comparison.scatters:
        cards = [
            (f"{task}: {describe_correlation(found)}", svg, "")
            for (task, found), svg in zip(
                comparison.scatters, comparison.scatters_drawn, strict=True
            )
        ]
        text = (
            "One dot per run, at its end. A rank correlation over seeds and settings does not "
            "show a cause."
        )
        yield "Sharpness, value error and return", text, cards


def _details(comparison: RunComparison) -> Iterable[tuple[str, list[str], Iterable[Sequence[Any]]]]:
    """Folded tables: title, heads and rows."""
    names = [run.folder.name for run in comparison.runs]
    if comparison.references:
        rows = [
            (s.method, s.task, f"{s.frame:,}", *map(format_number, (s.mean, s.std)),
             s.seeds or "-", s.source)
            for s in comparison.references
        ]  # fmt: skip
        heads = ["method", "task", "frames", "mean return", "std over seeds", "seeds", "source"]
        yield "Published scores", heads, rows
    if comparison.settings:
        rows = zip(names, *comparison.settings.values(), strict=True)
        yield "Settings that differ", ["run", *comparison.settings], rows
    tasks = task_names(comparison.runs)
    rows = [
        (name, tasks[run.task_key], run.seed,
         *map(format_number, (run.last_evaluation, run.action_repeat)),
         str(run.environment.get("git_revision") or "-")[:10])
        for name, run in zip(names, comparison.runs, strict=True)
    ]  # fmt: skip
    heads = ["run", "task", "seed", "last evaluated step", "frames per step", "revision"]
    yield "Runs", heads, rows


def _versus(row: GroupSummary, columns: Sequence[Column]) -> list[tuple[str, float]]:
    """Texts of the comparisons with the baseline, each with the number that it is sorted by."""
    texts = versus_texts(row, columns)
    numbers = [_versus_numbers(row, row.versus), _versus_numbers(row, row.versus_compute)]
    return list(zip(texts, [number for pair in numbers for number in pair], strict=False))


def _versus_numbers(row: GroupSummary, versus: Versus | None) -> tuple[float, float]:
    if versus is None:
        return (0.0, 0.5) if row.is_baseline else (math.nan, math.nan)
    return versus.difference.point, versus.improvement


def _extents(rows: Sequence[GroupSummary], column: Column) -> dict[str, tuple[float, float]]:
    """Smallest and largest number that the bars of each task have to show."""
    numbers: dict[str, list[float]] = {}
    for row in rows:
        found = [number for number in row.cells[column.key].interval if math.isfinite(number)]
        numbers.setdefault(row.group.task, []).extend(found)
    return {task: (min(found), max(found)) for task, found in numbers.items() if found}


def _place(value: float, low: float, high: float) -> str:
    """Where a number is on the bar of an interval."""
    return f"{5.0 + 120.0 * (value - low) / ((high - low) or 1.0):.1f}"


def _best(rows: Sequence[GroupSummary], column: Column) -> dict[str, GroupSummary]:
    """The best group of each task, where all that have the number have seeds enough."""
    best: dict[str, GroupSummary] = {}
    for task in {row.group.task for row in rows}:
        known = [row for row in rows if row.group.task == task and row.cells[column.key].by_seed]
        if len(known) > 1 and all(len(r.cells[column.key].by_seed) >= MIN_SEEDS for r in known):
            best[task] = max(known, key=lambda row: row.cells[column.key].interval.point)
    return best


def _sortable(value: float) -> str:
    """Number for the page's sorting; what was not measured goes below everything."""
    return repr(float(value)) if math.isfinite(value) else "-1e308"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
