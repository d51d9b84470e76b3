"""The table that a terminal shows: the numbers that are read first, in lines that do not wrap."""

import textwrap
from collections.abc import Sequence

from mbrl_flat.compare.axes import AXES
from mbrl_flat.compare.summary import GroupSummary, present_columns
from mbrl_flat.compare.tables import describe_versus, format_interval, format_number
from mbrl_flat.errors import printable

WIDTH = 100
_RETURN = "return_at_common_point"
_HEADS = {
    "success_rate": "success rate",
    "value_rmse_normalised": "value NRMSE",
    "lambda_max": "sharpness",
    "evaluations_per_update": "evaluations",
}
_GAP = "  "
_LONGEST_LABEL = 30


def to_text(rows: Sequence[GroupSummary], *, statistic: str = "mean", width: int = WIDTH) -> str:
    """One block a task and one line a group, in lines of at most ``width`` characters.

    Columns that do not fit are left out from the right. A long name of a group has lines of its
    own above the numbers.

    Args:
        rows: The rows of the table.
        statistic: What puts seeds together, for the line above a block.
        width: Longest line.

    Returns:
        The text, without the columns that only the written tables have.
    """
    return "\n".join(
        "\n".join(_block([row for row in rows if row.group.task == task], statistic, width)) + "\n"
        for task in dict.fromkeys(row.group.task for row in rows)
    )


def _block(rows: Sequence[GroupSummary], statistic: str, width: int) -> list[str]:
    match = rows[0].match
    point = f"{format_number(match.point)} {AXES[match.axis]}"
    task = printable(rows[0].group.task)
    title = f"{task}: return at {point}; {statistic} over seeds [95 % interval]"
    labels = [printable(row.group.label) for row in rows]
    beside = [label if len(label) <= _LONGEST_LABEL else "" for label in labels]
    table = _aligned([["group", *beside], *_columns(rows)], width)
    lines = [*textwrap.wrap(title, width), table[0]]
    for label, short, line in zip(labels, beside, table[1:], strict=True):
        lines += [*([] if short else textwrap.wrap(label, width)), line]
    return lines


def _columns(rows: Sequence[GroupSummary]) -> list[list[str]]:
    """Head and cells of each column, those that are read first at the left."""

    def cells(key: str, digits: int) -> list[str]:
        return [format_interval(row.cells[key].interval, digits) for row in rows]

    versus = [describe_versus(row.versus, is_baseline=row.is_baseline, digits=3)[0] for row in rows]
    present = {column.key for column in present_columns(rows)}
    return [
        ["seeds", *(str(len(row.group.seeds)) for row in rows)],
        ["return", *cells(_RETURN, 3)],
        ["difference (pairs)", *versus],
        *([head, *cells(key, 2)] for key, head in _HEADS.items() if key in present),
    ]


def _aligned(columns: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lines of the first columns that fit beside each other."""
    lines = [""] * len(columns[0])
    for column in columns:
        size = max(map(len, column))
        if len(lines[0]) + len(_GAP) + size > width:
            break
        lines = [f"{line}{_GAP}{cell:<{size}}" for line, cell in zip(lines, column, strict=True)]
    return [line.rstrip() for line in lines]
