"""What runs are compared at equal amounts of: steps, frames, gradient evaluations or time.

A method that evaluates two gradients an update has seen as much data as Adam after as many steps,
but has computed twice as much. *Step-matched* and *compute-matched* comparisons answer different
questions, so every curve and every number at a common point can be had on each axis.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from mbrl_flat.compare.runs import EMPTY, Run, Series

Axis = Literal["steps", "frames", "evaluations", "hours"]

AXES: Mapping[Axis, str] = {
    "steps": "steps",
    "frames": "frames",
    "evaluations": "gradient evaluations",
    "hours": "training hours",
}
"""Titles."""

_CLOCKS = {"evaluations": "optim/evaluations_total", "hours": "time/hours"}


def scaled(run: Run, series: Series, axis: Axis) -> Series:
    """Place a series on an axis.

    Between two lines of the log, evaluations and hours are interpolated in the steps; the run
    begins with none of either, and has no evaluations up to the last line before it learns.

    Args:
        run: The run that the series is of.
        series: A metric against agent steps.
        axis: What to count in.

    Returns:
        The series against that; empty if the run did not log it.
    """
    if axis == "steps" or len(series.steps) == 0:
        return series
    if axis == "frames":
        known = np.isfinite(run.action_repeat)
        return Series(series.steps * run.action_repeat, series.values) if known else EMPTY
    clock = run.series(_CLOCKS[axis])
    if len(clock.steps) == 0:
        return EMPTY
    steps, counts = np.append(0.0, clock.steps), np.append(0.0, clock.values)
    return Series(np.interp(series.steps, steps, counts), series.values)


def evaluated(run: Run, name: str, axis: Axis) -> Series:
    """What evaluations measured, on an axis; empty if the run has none after its start."""
    return scaled(run, run.series(name), axis) if run.last_evaluation > 0 else EMPTY


def returns_of(run: Run, axis: Axis) -> Series:
    """Evaluations of a run on an axis; empty if it was not evaluated after its start."""
    return evaluated(run, "eval/return_mean", axis)


def common_point(runs: Iterable[Run], axis: Axis) -> float:
    """Furthest point of an axis up to which every run was evaluated.

    Args:
        runs: All runs of one task; those not yet evaluated after their start do not count.
        axis: What the curves are drawn against, such as frames or gradient evaluations.

    Returns:
        The point, NaN if no run got anywhere.
    """
    ends = [float(series.steps[-1]) for run in runs if len((series := returns_of(run, axis)).steps)]
    return min(ends) if ends else np.nan
