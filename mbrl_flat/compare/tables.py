"""The table as CSV for programs and as Markdown for people."""

import math
from collections.abc import Sequence

from mbrl_flat.analysis.stats import Interval
from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.columns import Column
from mbrl_flat.compare.summary import GroupSummary, Versus, present_columns
from mbrl_flat.errors import printable
from mbrl_flat.runtime.files import csv_text

_GROUP = ("task", "agent", "optimizer", "label")
_IDENTITY = (*_GROUP, "seeds", "axis", "common_point")
_VERSUS = ("difference", "difference_low", "difference_high", "pairs", "improvement")
COMPUTE = "return_at_equal_evaluations"
"""Column that is there when methods compute unequally; then differences are given for both."""


def format_number(value: float, digits: int = 4) -> str:
    """A few significant digits, thousands in groups; a dash for what was not measured."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def format_interval(interval: Interval, digits: int = 4) -> str:
    """``point [low, high]``; the point alone where there is no interval."""
    if not math.isfinite(interval.low):
        return format_number(interval.point, digits)
    low, point, high = (format_number(value, digits) for value in interval)
    return f"{point} [{low}, {high}]"


def to_csv(rows: Sequence[GroupSummary]) -> str:
    """Every number with its bounds and the number of seeds behind it; empty where unknown."""
    columns = present_columns(rows)
    names = [f"{c.key}{ending}" for c in columns for ending in ("", "_low", "_high", "_n")]
    matched = any(column.key == COMPUTE for column in columns)
    versus = [*_VERSUS, *(f"{name}_compute" for name in _VERSUS if matched)]
    lines: list[list[object]] = [[*_IDENTITY, *names, *versus]]
    for row in rows:
        group = row.group
        seeds = " ".join(map(str, group.seeds))
        cells: list[object] = [group.task, group.agent, group.optimizer, group.label, seeds]
        cells += [row.match.axis, _raw(row.match.point)]
        for column in columns:
            cell = row.cells[column.key]
            low, point, high = cell.interval
            cells += [_raw(point), _raw(low), _raw(high), len(cell.by_seed)]
        cells += _versus_cells(row.versus)
        lines.append([*cells, *(_versus_cells(row.versus_compute) if matched else ())])
    return csv_text(lines)


def to_csv_by_seed(rows: Sequence[GroupSummary]) -> str:
    """What the intervals were made of: one line a group and seed; empty where unknown."""
    columns = present_columns(rows)
    lines: list[list[object]] = [[*_GROUP, "seed", *(column.key for column in columns)]]
    for row in rows:
        group = row.group
        for seed in group.seeds:
            cells = [row.cells[c.key].by_seed.get(seed, math.nan) for c in columns]
            identity = (group.task, group.agent, group.optimizer, group.label, seed)
            lines.append([*identity, *map(_raw, cells)])
    return csv_text(lines)


def to_markdown(rows: Sequence[GroupSummary]) -> str:
    """One row a group, one column a number, with 95% intervals."""
    columns = present_columns(rows)
    heads = ["task", "group", "seeds", *(head(column, rows) for column in columns)]
    heads += versus_heads(columns)
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in rows:
        cells = [row.group.task, row.group.label, str(len(row.group.seeds))]
        cells += [format_interval(row.cells[column.key].interval) for column in columns]
        lines.append(_line([*cells, *versus_texts(row, columns)]))
    return "\n".join(lines) + "\n"


def describe_versus(
    versus: Versus | None, *, is_baseline: bool, digits: int = 4
) -> tuple[str, str]:
    """Difference with its interval and number of pairs, and the probability of improvement."""
    if versus is None:
        return "baseline" if is_baseline else "no baseline", "-"
    if versus.seeds == 0:
        return "no shared seed", format_number(versus.improvement)
    difference = f"{format_interval(versus.difference, digits)} ({versus.seeds})"
    return difference, format_number(versus.improvement)


def ranked_key(columns: Sequence[Column]) -> str:
    """Runs of unequal length have a winner at the point that all reached, not at their own ends."""
    keys = {column.key for column in columns}
    return "return_at_common_point" if "return_at_common_point" in keys else "final_return"


def versus_heads(columns: Sequence[Column]) -> list[str]:
    """Titles of the comparisons with the baseline that go with these columns."""
    # A mean of paired differences whatever puts the seeds of the other columns together.
    heads = ["mean difference to baseline (pairs)", "P(improvement)"]
    if any(column.key == COMPUTE for column in columns):
        heads += [f"{head}, equal compute" for head in heads]
    return heads


def versus_texts(row: GroupSummary, columns: Sequence[Column]) -> list[str]:
    """What stands below ``versus_heads``."""
    texts = [*describe_versus(row.versus, is_baseline=row.is_baseline)]
    if any(column.key == COMPUTE for column in columns):
        texts += describe_versus(row.versus_compute, is_baseline=row.is_baseline)
    return texts


def head(column: Column, rows: Sequence[GroupSummary]) -> str:
    """Title of a column; names the common point where all tasks share it."""
    points = {row.match.point for row in rows}
    if column.key == "return_at_common_point" and len(points) == 1:
        return f"return at {format_number(points.pop())} {AXES[rows[0].match.axis]}"
    return column.title


def _versus_cells(versus: Versus | None) -> list[object]:
    if versus is None:
        return [""] * len(_VERSUS)
    low, point, high = versus.difference
    return [_raw(point), _raw(low), _raw(high), versus.seeds, _raw(versus.improvement)]


def _raw(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""


def _line(cells: Sequence[str]) -> str:
    # Names may come from someone else's run, and Markdown passes HTML on.
    whole = [printable(cell).replace("|", "\\|") for cell in cells]
    whole = [cell.replace("<", "&lt;") for cell in whole]
    return f"| {' | '.join(whole)} |"
