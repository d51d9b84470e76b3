"""The record of a run: one JSON object a line, readable at every moment.

A line has ``step``, ``frame``, ``time`` (seconds since the epoch) and the metrics. JSON knows
neither NaN nor infinity, and many readers refuse them: numbers that are not finite are written as
``null`` and read back as NaN.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbrl_flat.errors import UserError
from mbrl_flat.logging.metric_names import current_name
from mbrl_flat.runtime.files import read_regular

try:  # four times as fast; the core install reads without it
    from orjson import loads as _loads
except ImportError:
    from json import loads as _loads

_MAX_BYTES = 2**32
"""Of a file that is read: millions of rows of thirty metrics."""
_MAX_LINE = 2**24
"""Bytes of a row that was being written when its process was killed."""
_RESERVED = ("step", "frame", "time")


class JsonlLogger:
    """Appends rows to a file, each flushed before ``write`` returns.

    A killed process leaves at most one half line at the end; it is cut before the next row.
    Together with ``position`` and ``truncate`` a resumed run leaves the same file as one that was
    never interrupted, times apart.

    Args:
        path: The file; it and its folder are made if they are absent.
        clock: Where ``time`` comes from.

    Raises:
        UserError: If the file is no record of a run.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._clock = clock
        self._file = path.open("ab+")
        try:
            self._end: int | None = _end_of_last_whole_line(self._file, path)
        except UserError:
            self._file.close()
            raise

    def _cut_torn_line(self) -> None:
        """Not when the file is opened: a run that is then refused has changed nothing."""
        if self._end is not None:
            self._file.truncate(self._end)
            self._file.seek(0, os.SEEK_END)
            self._end = None

    @property
    def position(self) -> int:
        """Bytes written so far, safe on the disk: a checkpoint may rely on them."""
        self._cut_torn_line()
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Append one row.

        Raises:
            ValueError: If a metric is called ``step``, ``frame`` or ``time``.
            UserError: If the file was deleted or moved since it was opened.
        """
        taken = sorted(metrics.keys() & set(_RESERVED))
        if taken:
            raise ValueError(f"Metrics must not be called {', '.join(taken)}: the row has these.")
        row: dict[str, Any] = {"step": step, "frame": frame, "time": round(self._clock(), 3)}
        row |= {name: _finite_or_none(float(value)) for name, value in metrics.items()}
        if not self._is_there():
            raise UserError(
                f"{self.path} was deleted or moved during the run, so the run ends here; what was "
                f"saved before is in the folder's new place, if it has one."
            )
        self._cut_torn_line()
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def _is_there(self) -> bool:
        """Whether the open file is still the one at its path."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def truncate(self, position: int) -> None:
        """Forget everything after ``position``, a value that ``position`` once had.

        Raises:
            UserError: If the file was changed by others so that this is no end of a line.
        """
        length = self._file.seek(0, os.SEEK_END)
        starts_line = position == 0
        if 0 < position <= length:
            self._file.seek(position - 1)
            starts_line = self._file.read(1) == b"\n"
        if not starts_line:
            raise UserError(
                f"{self.path} is not the file that the checkpoint knows: {position} is not the end "
                f"of one of its lines ({length} bytes); put the original back to resume this run."
            )
        self._end = position
        self._cut_torn_line()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read all rows of a run; a last line without its end is left out.

    Args:
        path: A ``metrics.jsonl``.

    Returns:
        One dictionary a line, ``null`` as NaN, metrics under their current names.

    Raises:
        UserError: If there is no such file, or a line is not a JSON object of numbers.
    """
    rows = read_rows(path)
    check_numbers(rows, path)
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON objects, one a line; a last line without its end, still being written, is left out.

    Args:
        path: A file with one JSON object a line.

    Returns:
        One dictionary a line, ``null`` as NaN, metrics under their current names.

    Raises:
        UserError: If there is no such file, or a line is not a JSON object.
    """
    content = read_whole_lines(path)
    lines = content.splitlines()
    try:
        rows = [_loads(line) for line in lines]
    except (ValueError, RecursionError):
        rows = []
    if len(rows) != len(lines) or not all(type(row) is dict for row in rows):
        rows = [_parse_line(line, number, path) for number, line in enumerate(lines, start=1)]
    if b"null" in content:
        rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]
    # Not by looking through the text: it is a thousand times as long as its names.
    old = {name for name in {name for row in rows for name in row} if current_name(name) != name}
    if old:
        rows = [{current_name(name): value for name, value in row.items()} for row in rows]
    return rows


def read_whole_lines(path: Path) -> bytes:
    """Read the file as far as its last line feed; see ``read_rows``."""
    content = read_regular(path, limit=_MAX_BYTES)
    return content[: content.rfind(b"\n") + 1]


def check_numbers(
    rows: Sequence[Mapping[str, Any]], path: Path, *, needed: Sequence[str] = ()
) -> None:
    """Refuse rows that do not hold numbers alone, or lack one.

    Args:
        rows: What ``read_rows`` gave.
        path: Where it was read from.
        needed: Names that every row must have.

    Raises:
        UserError: If a value is no number or a name is missing; it says
            in which line.
    """
    for number, row in enumerate(rows, start=1):
        missing = [name for name in needed if not isinstance(row.get(name), int | float)]
        wrong = [name for name, value in row.items() if not _is_number(value)]
        if wrong or missing:
            problem = f"{wrong[0]} is no number" if wrong else f"has no {' and no '.join(missing)}"
            raise UserError(
                f"Line {number} of {path}: {problem}; delete that line to read the rest."
            )


def _is_number(value: object) -> bool:
    # An integer of hundreds of digits is none that a metric can have.
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _parse_line(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise UserError(
            f"Line {number} of {path} is not a JSON object; delete that line to read the rest."
        )
    return row


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _end_of_last_whole_line(file: Any, path: Path, *, chunk: int = 65536) -> int:
    """Bytes up to and with the last line feed, found from the end."""
    last = end = file.seek(0, os.SEEK_END)
    while end > 0:
        if last - end > _MAX_LINE:
            raise UserError(f"{path} is damaged (its last line has no end); restore it.")
        start = max(0, end - chunk)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
