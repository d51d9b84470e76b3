"""The metrics of a run as arrays: what reads hundreds of runs at once needs."""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbrl_flat.errors import UserError
from mbrl_flat.logging.jsonl import check_numbers, read_rows, read_whole_lines
from mbrl_flat.logging.metric_names import current_name
from mbrl_flat.runtime import c_library

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
    scanned = _scanned(read_whole_lines(path), keep)
    if scanned is not None:
        return scanned
    rows = read_rows(path)
    try:
        return columns_of(rows, keep)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        # Which line it is matters only now: to check each of them takes its time.
        check_numbers(rows, path, needed=PLACE)
        raise UserError(f"{path} does not hold numbers alone: {error}.") from error


_MAX_NAMES = 2**12
"""Of one file; with more, Python reads it."""


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    source = Path(__file__).with_name("metrics.c")
    library = c_library.load([source], instead="reading logs without compiled code")
    if library is not None:
        library.read_metrics.restype = ctypes.c_int64
    return library


def _scanned(content: bytes, keep: tuple[str, ...]) -> dict[str, Column] | None:
    """What ``read_columns`` gives of a plain file, see ``metrics.c``; None of any other."""
    library = _library()
    if library is None:
        return None
    # The shortest is '"":0,'.
    most = len(content) // 5 + 1
    which, rows, values = np.empty(most, np.int16), np.empty(most, np.int64), np.empty(most)
    places, counts = np.empty((_MAX_NAMES, 2), np.int64), np.empty(2, np.int64)
    beginnings = "\0".join([*PLACE, *keep, "", ""]).encode()
    found = library.read_metrics(
        *(content, ctypes.c_int64(len(content)), beginnings, _MAX_NAMES, ctypes.c_int64(most)),
        *(ctypes.c_void_p(array.ctypes.data) for array in (which, rows, values, places, counts)),
    )
    if found <= 0:
        return None
    try:
        names = [content[p : p + size].decode() for p, size in places[: counts[1]].tolist()]
    except UnicodeDecodeError:
        return None
    order = np.argsort(which[:found], kind="stable")
    bounds = np.bincount(which[:found], minlength=len(names)).cumsum()[:-1]
    rows, values = (np.split(array[:found][order], bounds) for array in (rows, values))
    columns = {
        name: Column(*pair)
        for name, *pair in zip(names, rows, values, strict=True)
        if name in PLACE or name.startswith(keep)
    }
    whole = all(name in columns and len(columns[name].rows) == counts[0] for name in PLACE)
    if not whole or any(current_name(name) != name for name in names):
        return None
    return {name: columns[name] for name in PLACE} | columns


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
