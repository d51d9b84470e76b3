"""The metrics of a run as arrays: what reads hundreds of runs at once needs."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbrl_flat.errors import UserError
from mbrl_flat.logging.jsonl import check_numbers, read_rows

PLACE = ("step", "frame", "time")
"""What every row of ``metrics.jsonl`` has."""


class Column(NamedTuple):
    """One metric with the numbers of the rows that have it, from 0, in ascending order."""

    rows: np.ndarray
    values: np.ndarray


def read_columns(path: Path, keep: tuple[str, ...]) -> dict[str, Column]:
    """Read metrics by name.

    Args:
        path: A ``metrics.jsonl``.
        keep: Beginnings of the names that are wanted; ``step``, ``frame`` and ``time`` always are.

    Returns:
        Columns by name, float64; ``null`` as NaN. Every row has a place in ``step``, ``frame`` and
        ``time``, which are empty for a file without rows.

    Raises:
        UserError: If there is no such file, or a line is not a JSON object of numbers with a
            step, a frame and a time.
    """
    rows = read_rows(path)
    try:
        return columns_of(rows, keep)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        # Which line it is matters only now: to check each of them takes its time.
        check_numbers(rows, path, needed=PLACE)
        raise UserError(f"{path} does not hold numbers alone: {error}.") from error


def columns_of(rows: Iterable[Mapping[str, Any]], keep: tuple[str, ...]) -> dict[str, Column]:
    """Collect rows by name; see ``read_columns``."""
    kinds: dict[tuple[str, ...], list[tuple[int, Mapping[str, Any]]]] = {}
    for numbered in enumerate(rows):
        kinds.setdefault(tuple(numbered[1]), []).append(numbered)
    found: dict[str, list[Column]] = {name: [] for name in PLACE}
    for names, members in kinds.items():
        missing = set(PLACE) - set(names)
        if missing:
            raise KeyError(*missing)
        numbers, values = zip(*((number, row.values()) for number, row in members), strict=True)
        place, table = np.array(numbers), _table(values, len(names))
        for column, name in enumerate(names):
            if name in PLACE or name.startswith(keep):
                found.setdefault(name, []).append(Column(place, table[:, column]))
    return {name: _joined(parts) for name, parts in found.items()}


def _table(rows: Sequence[Iterable[Any]], width: int) -> np.ndarray:
    """Numbers ``[N, width]``."""
    values = list(chain.from_iterable(rows))
    if not set(map(type, values)) <= {int, float}:
        raise TypeError("a value is no number")
    return np.array(values, np.float64).reshape(-1, width)


def _joined(parts: list[Column]) -> Column:
    if not parts:
        return Column(np.empty(0, int), np.empty(0))
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    return Column(rows[order], np.concatenate([part.values for part in parts])[order])
