"""Curves of several seeds on one grid, and pairs of metrics at the end of runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mbrl_flat.analysis.stats import bootstrap_band, spearman
from mbrl_flat.compare.axes import Axis, scaled
from mbrl_flat.compare.columns import FINAL_SHARE, MIN_SEEDS, final
from mbrl_flat.compare.groups import Group
from mbrl_flat.compare.runs import Series
from mbrl_flat.evaluation.reference_scores import reference_curves

_MAX_POINTS = 300


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A mean over seeds with its band, or with its seeds where these are few; arrays are ``[G]``.

    A curve with fewer than ``MIN_SEEDS`` seeds has ``seeds`` and no band: ``low`` and ``high`` are
    NaN. One with more has a band and no ``seeds``.
    """

    label: str
    x: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray
    seeds: tuple[Series, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScatterData:
    """One point a run: two numbers at its end, and how their ranks agree."""

    x_name: str
    y_name: str
    points: tuple[tuple[str, str, float, float], ...]
    """Label, run, x and y."""
    correlation: float
    """Rank correlation; NaN with fewer than ``MIN_SEEDS`` seeds."""


def average(group: Group, name: str, *, axis: Axis, rng: np.random.Generator) -> Curve | None:
    """Average one metric over the seeds of a group.

    The grid has every place where a seed was measured. Seeds are interpolated linearly between
    their own first and last measurement and never beyond, so that runs of unequal length and with
    other intervals can be averaged. The curve is there where at least half of the seeds are: a
    mean over the few that went furthest would be of other runs than the rest of it.

    Args:
        group: The group whose runs are averaged.
        name: Name of the metric, such as ``eval/return_mean``.
        axis: Unit of x.
        rng: Source of the bootstrap.

    Returns:
        The curve, ``None`` if no run was measured or nowhere half of them.
    """
    seeds = [scaled(run, run.series(name), axis) for run in group.runs]
    seeds = [
        series for series in seeds if len(series.steps) > 0 and np.isfinite(series.steps).all()
    ]
    if not seeds:
        return None
    grid = np.unique(np.concatenate([series.steps for series in seeds]))
    if len(grid) > _MAX_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, _MAX_POINTS).round().astype(int)]
    values = np.stack(
        [np.interp(grid, s.steps, s.values, left=np.nan, right=np.nan) for s in seeds]
    )
    known = 2 * np.isfinite(values).sum(0) >= len(seeds)
    if not known.any():
        return None
    grid, values = grid[known], values[:, known]
    if len(seeds) >= MIN_SEEDS:
        low, middle, high = bootstrap_band(values, rng=rng)
        return Curve(label=group.label, x=grid, low=low, mean=middle, high=high)
    none = np.full(len(grid), np.nan)
    middle = np.nanmean(values, axis=0)
    return Curve(label=group.label, x=grid, low=none, mean=middle, high=none, seeds=tuple(seeds))


def published(methods: Sequence[str], groups: Sequence[Group], axis: Axis) -> list[Curve]:
    """Published curves of one task, plus and minus one standard deviation over seeds.

    Args:
        methods: Names of the methods whose published curves are wanted.
        groups: The groups of the task; they say how many frames a step has.
        axis: Unit of x; what other code computed is not known in evaluations or hours.

    Returns:
        One curve a method, as far as the longest run went.
    """
    runs = [run for group in groups for run in group.runs if run.last_evaluation > 0]
    if not runs:
        return []
    end = max(run.last_evaluation * run.action_repeat for run in runs)
    if axis not in ("steps", "frames"):
        return []
    unit = 1.0 if axis == "frames" else runs[0].action_repeat
    curves: list[Curve] = []
    for method, scores in reference_curves(*runs[0].task_key).items():
        reached = [score for score in scores if score.frame <= end]
        if method in methods and reached:
            x = np.array([score.frame for score in reached]) / unit
            mean = np.array([score.mean for score in reached])
            std = np.array([score.std for score in reached])
            label = f"{method}, published"
            curves.append(Curve(label=label, x=x, low=mean - std, mean=mean, high=mean + std))
    return curves


def scatter_data(
    groups: Sequence[Group], x_name: str, y_name: str, *, last: float = FINAL_SHARE
) -> ScatterData | None:
    """Pair two metrics at the end of every run that has both.

    Args:
        groups: The groups of one task; returns of several tasks have no common scale.
        x_name: The metric on the x axis.
        y_name: The metric on the y axis.
        last: How much of a run, from its end, a point is the mean over.

    Returns:
        Points and their rank correlation; ``None`` if no run has both.
    """
    points: list[tuple[str, str, float, float]] = []
    seeds: set[int] = set()
    for group in groups:
        for run in group.runs:
            x, y = (final(run.series(name), share=last) for name in (x_name, y_name))
            if np.isfinite(x) and np.isfinite(y):
                points.append((group.label, run.folder.name, x, y))
                seeds.add(run.seed)
    if not points:
        return None
    correlation = np.nan
    if len(seeds) >= MIN_SEEDS:
        correlation = spearman(np.array([p[2] for p in points]), np.array([p[3] for p in points]))
    return ScatterData(x_name=x_name, y_name=y_name, points=tuple(points), correlation=correlation)
