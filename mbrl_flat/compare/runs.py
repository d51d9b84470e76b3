"""Runs as the comparison sees them: names, flat settings and a few series of numbers."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbrl_flat.errors import UserError
from mbrl_flat.logging.labels import current_names
from mbrl_flat.logging.metric_columns import PLACE, Column, columns_of, read_columns
from mbrl_flat.runtime.plain_files import read_json, read_yaml
from mbrl_flat.runtime.settings import flatten

_KEPT = ("eval/", "probe/", "time/", "optim/evaluations")
_EVALUATIONS = "optim/evaluations_total"
_MAX_FOLDERS = 20_000
"""So many are searched below one path; it takes about a second."""
_PARTS = ("time/env", "time/act", "time/update", "time/sample", "time/probe")


Columns = Mapping[str, Column]


class Series(NamedTuple):
    """One metric over a run."""

    steps: np.ndarray
    """Steps ``[N]`` in ascending order, float64."""
    values: np.ndarray
    """Finite values ``[N]``, float64."""

    def until(self, step: float) -> "Series":
        """The part up to ``step``, cut there by linear interpolation if it is longer."""
        return self.between(-np.inf, step)

    def between(self, low: float, high: float) -> "Series":
        """The part between two steps, cut there by linear interpolation where it is longer."""
        inside = (self.steps >= low) & (self.steps <= high)
        ends = self.steps[[0, -1]] if len(self.steps) > 0 else (np.inf, -np.inf)
        cuts = [x for x in (low, high) if ends[0] < x < ends[1] and x not in self.steps]
        steps = np.append(self.steps[inside], cuts)
        values = self.values[inside]
        if cuts:
            values = np.append(values, np.interp(cuts, self.steps, self.values))
        order = np.argsort(steps, kind="stable")
        return Series(steps[order], values[order])


EMPTY = Series(np.empty(0), np.empty(0))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        folder: Where it lies.
        names: What the user called ``agent``, ``env``, ``task`` and ``optimizer``.
        seed: Its seed.
        config: Every setting by its dotted name.
        environment: Versions and device by dotted name; empty if they were not written.
        metrics: Series by name.
        action_repeat: Frames in a step; NaN before the first step.
        wall_seconds: Time spent in the loop; NaN if there is no row.
    """

    folder: Path
    names: Mapping[str, str]
    seed: int
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Mapping[str, Series]
    action_repeat: float
    wall_seconds: float

    @property
    def task_key(self) -> tuple[str, str]:
        """Family of environments and task: MinAtar has a breakout of its own."""
        return self.names.get("env", ""), self.names["task"]

    def series(self, name: str) -> Series:
        """One metric; empty if it was never measured."""
        return self.metrics.get(name, EMPTY)

    @property
    def last_evaluation(self) -> float:
        """Step of the last evaluation; NaN without one."""
        steps = self.series("eval/return_mean").steps
        return float(steps[-1]) if len(steps) > 0 else np.nan


def find_runs(patterns: Sequence[str]) -> list[Path]:
    """Find the folders of runs that the user means.

    Args:
        patterns: Folders of runs, folders that hold runs at any depth, or globs of either.

    Returns:
        Folders with a ``config.yaml``, each once, in the order of the patterns.

    Raises:
        UserError: If a pattern leads to no run.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        folders = [folder for path in _matches(pattern) for folder in _runs_in(path)]
        if not folders:
            raise UserError(
                f"There is no run at {pattern!r}; give folders with a config.yaml, or a glob "
                "such as 'runs/walker*'."
            )
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _matches(pattern: str) -> list[Path]:
    """The path itself where it exists, or what a glob matches; ``**`` follows no links."""
    path = Path(pattern)
    if not pattern.strip():
        raise UserError("The path of a run is empty; give a folder, or a glob such as 'runs/*'.")
    try:
        if path.exists():
            return [path]
        return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot look for runs at {pattern!r}: {reason}.") from error


def _runs_in(path: Path) -> list[Path]:
    """Runs at any depth, and links to runs; within a run there is no other."""
    # A link to anything else may lead back, or out into the whole file system.
    found: list[Path] = []
    for count, (folder, below, files) in enumerate(os.walk(path)):
        if count == _MAX_FOLDERS:
            raise UserError(
                f"More than {_MAX_FOLDERS:,} folders lie below {path}; give the folders of the "
                f"runs, or one that is closer to them."
            )
        if "config.yaml" in files:
            found.append(Path(folder))
            below.clear()
        for inner in (Path(folder, name) for name in below):
            if inner.is_symlink() and os.access(inner / "config.yaml", os.F_OK):
                found.append(inner)
    return sorted(found)


def task_names(runs: Iterable[Run]) -> dict[tuple[str, str], str]:
    """What to call the task of each run, by its ``task_key``.

    Args:
        runs: All runs of a comparison.

    Returns:
        The task; ``env/task`` where several families of environments have one of that name.
    """
    keys = {run.task_key for run in runs}
    names = [task for _, task in keys]
    return {
        (env, task): f"{env}/{task}" if env and names.count(task) > 1 else task
        for env, task in keys
    }


def load_run(folder: Path) -> Run:
    """Read one run; metrics that it lacks are simply absent.

    Args:
        folder: Its folder, with ``config.yaml``.

    Returns:
        The run.

    Raises:
        UserError: If its configuration or its metrics cannot be read.
    """
    config = read_yaml(folder / "config.yaml")
    names = config.get("names")
    if not isinstance(names, dict) or not {"agent", "task", "optimizer"} <= names.keys():
        raise UserError(
            f"{folder / 'config.yaml'} does not say which agent, task and optimizer it is "
            "(key names); it was not written by mbrl-flat-train, so leave this folder out."
        )
    metrics_file = folder / "metrics.jsonl"
    columns = read_columns(metrics_file, _KEPT) if metrics_file.exists() else columns_of([], _KEPT)
    metrics, hours = collect_series(columns), _hours(columns)
    if _EVALUATIONS in metrics:
        metrics[_EVALUATIONS] = _from_zero(metrics[_EVALUATIONS], columns)
    return Run(
        folder=folder,
        names={key: str(value) for key, value in current_names(names).items()},
        seed=_seed(config.get("seed", 0), folder),
        config=dict(flatten({**config, "names": current_names(names)})),
        environment=_read_environment(folder / "environment.json"),
        metrics=metrics | {"time/hours": hours},
        action_repeat=_action_repeat(columns),
        wall_seconds=3600.0 * float(hours.values[-1]) if len(hours.values) > 0 else np.nan,
    )


def _seed(value: object, folder: Path) -> int:
    if type(value) is not int:  # true is an int too
        raise UserError(
            f"{folder / 'config.yaml'} has the seed {value!r}, which is no whole number; restore "
            "it or leave this run out."
        )
    return value


def collect_series(columns: Columns) -> dict[str, Series]:
    """Turn columns into series of finite values; steps that a resume repeated count once, the last.

    Args:
        columns: What ``read_columns`` gave.

    Returns:
        Series by name.
    """
    steps = columns["step"].values
    return {
        name: _series(steps[column.rows], column.values)
        for name, column in columns.items()
        if name not in PLACE
    }


def _series(steps: np.ndarray, values: np.ndarray) -> Series:
    """In the order of the steps, the last of equal ones, and of those the finite ones."""
    if len(steps) > 1 and not (np.diff(steps) > 0).all():
        steps, first = np.unique(steps[::-1], return_index=True)
        values = values[::-1][first]
    known = np.isfinite(values)
    return Series(steps, values) if known.all() else Series(steps[known], values[known])


def _read_environment(path: Path) -> dict[str, Any]:
    """What is known of the machine; runs from elsewhere may not have it."""
    return dict(flatten(read_json(path))) if path.is_file() else {}


def _action_repeat(columns: Columns) -> float:
    steps, frames = columns["step"].values, columns["frame"].values
    return float(frames[-1] / steps[-1]) if len(steps) > 0 and steps[-1] > 0 else np.nan


def _from_zero(total: Series, columns: Columns) -> Series:
    """The count of evaluations from where the log still showed none: rows then lack the count."""
    # Rows of evaluations and probes never have it and say nothing; those of the log have times.
    if _PARTS[0] not in columns or len(total.steps) == 0:
        return total
    logged = np.setdiff1d(columns[_PARTS[0]].rows, columns[_EVALUATIONS].rows)
    idle = columns["step"].values[logged]
    idle = idle[idle < total.steps[0]]
    if len(idle) == 0:
        return total
    return Series(np.append(idle.max(), total.steps), np.append(0.0, total.values))


def _hours(columns: Columns) -> Series:
    """Training hours by step, so that pauses between a stop and a resume do not count."""
    # Steps that a resume repeated count once, the last time, as in every other series.
    every = columns["step"].values
    spent = np.zeros(len(every))
    for name in _PARTS:
        if name in columns:
            spent[columns[name].rows] += columns[name].values
    logged = columns[_PARTS[0]].rows if _PARTS[0] in columns else np.empty(0, int)
    steps, seconds = _series(every[logged], spent[logged])
    if seconds.sum() > 0.0:
        return Series(steps, np.cumsum(seconds) / 3600.0)
    steps, times = _series(every, columns["time"].values)
    return Series(steps, (times - times[:1]) / 3600.0)
