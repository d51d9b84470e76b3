"""Cells and rows: one setting and seed each, computed once, kept in ``rows.jsonl``.

The file has one JSON object a line, flushed to the disk before the next cell starts; a killed
process leaves at most one half line, which is cut when the file is opened again.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbrl_flat.analysis.stats import paired_differences
from mbrl_flat.errors import UserError
from mbrl_flat.logging.jsonl import read_rows, read_whole_lines
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.plain_files import check_values

Scalar = float | int | str | bool | None

DIVERGED = "diverged_at_step"
"""Key of a row whose training diverged; its value is the step."""

SECONDS = "cpu_seconds"
"""Key of the CPU time that a row took; the only entry that differs when it is recomputed."""


class Trial(dict[str, Any]):
    """Settings of one computation, by name; the entry ``seed`` determines its random draws."""

    @property
    def key(self) -> str:
        """The settings as canonical JSON: equal for equal settings in whatever order."""
        return json.dumps(self, sort_keys=True)

    @property
    def label(self) -> str:
        """The settings in a few words, for a progress bar."""
        return " ".join(f"{name}={value}" for name, value in self.items())


class TrialRow(dict[str, Any]):
    """A cell's settings and what was measured, in one dictionary.

    Attributes:
        settings: Which entries are settings.
    """

    settings: Sequence[str] = ()

    @property
    def diverged(self) -> bool:
        """Whether training diverged, so that nothing was measured."""
        return DIVERGED in self


class TrialRows(Sequence[TrialRow]):
    """Rows, with what claims and figures ask of them."""

    def __init__(self, rows: Sequence[TrialRow] = ()) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[TrialRow]:
        return iter(self._rows)

    def where(self, **settings: Scalar) -> "TrialRows":
        """The rows that have all these entries."""
        return TrialRows(
            [r for r in self._rows if all(r.get(k, _ABSENT) == v for k, v in settings.items())]
        )

    def distinct(self, name: str) -> list[Any]:
        """Values of one entry, each once, in the order of the rows."""
        return list(dict.fromkeys(row[name] for row in self._rows if name in row))

    def values(self, metric: str) -> list[float]:
        """Finite values of a metric; rows that diverged or lack it are left out."""
        return [value for row in self._rows if math.isfinite(value := _number(row, metric))]

    def minus(self, other: "TrialRows", metric: str, theirs: str = "") -> list[float]:
        """Differences of a metric over the seeds that both have.

        Args:
            other: Rows whose values are subtracted.
            metric: What is compared.
            theirs: The other rows' metric, if it is another one.

        Returns:
            One difference for each shared seed.
        """
        pair = self.by_seed(metric), other.by_seed(theirs or metric)
        return list(paired_differences(*pair).values())

    def by_seed(self, metric: str) -> dict[int, float]:
        """Finite values of a metric by the row's seed."""
        return {
            int(_number(row, "seed")): value
            for row in self._rows
            if math.isfinite(value := _number(row, metric))
        }

    def diverged_at(self) -> list[int]:
        """Steps at which rows diverged."""
        return [int(_number(row, DIVERGED)) for row in self._rows if row.diverged]


_ABSENT = object()


def _number(row: TrialRow, name: str) -> float:
    """A number of a row.

    Returns:
        The number; NaN where there is none.

    Raises:
        UserError: If it is something else.
    """
    value = row.get(name)
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise UserError(f"A row of the study has {name}={value!r}, not a number; delete that line.")
    return float(value)


class RowFile:
    """``rows.jsonl`` of one study.

    Args:
        path: The file; made if it is absent.

    Raises:
        UserError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, TrialRow] = {}
        if path.exists():
            for line in read_rows(path):
                self._remember(line)
            whole = read_whole_lines(path)
            if len(whole) != path.stat().st_size:
                write_text_atomically(path, whole.decode())

    def _remember(self, line: Mapping[str, Any]) -> None:
        entries = dict(line)
        cell = entries.pop("cell", None)
        if not isinstance(cell, Mapping):
            raise UserError(f"{self.path} is not the record of a study: a line has no 'cell'.")
        try:
            check_values(dict(line))
        except ValueError as error:
            raise UserError(f"{self.path} is damaged ({error}); delete that line.") from error
        row = TrialRow({**cell, **entries})
        row.settings = list(cell)
        self._rows[Trial(cell).key] = row

    def __contains__(self, cell: Trial) -> bool:
        return cell.key in self._rows

    @property
    def rows(self) -> TrialRows:
        """All rows, in the order of the file."""
        return TrialRows(list(self._rows.values()))

    def select(self, cells: Sequence[Trial]) -> TrialRows:
        """The rows of these cells that are there, in the order of the cells."""
        return TrialRows([self._rows[cell.key] for cell in cells if cell in self])

    def append(self, cell: Trial, measured: Mapping[str, Any]) -> None:
        """Add a row; it is on the disk when this returns.

        Raises:
            ValueError: If a measurement has the name of a setting.
        """
        shared = sorted(cell.keys() & measured.keys())
        if shared:
            raise ValueError(f"Measurements must not be called like settings: {shared}.")
        line = {"cell": dict(cell), **{k: _finite_or_none(v) for k, v in measured.items()}}
        with self.path.open("ab") as file:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(line)


def _finite_or_none(value: Any) -> Any:
    """JSON has no number that is not finite; such become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_finite_or_none(item) for item in value]
    return value
