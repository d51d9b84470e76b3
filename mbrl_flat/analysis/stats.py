"""What a handful of seeds says: robust aggregates, their intervals, paired comparisons.

References:
    Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
    NeurIPS 2021, arXiv:2108.13264: interquartile mean, stratified bootstrap, probability of
    improvement (Sections 4.1 to 4.3).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps ``[..., N]`` scores to ``[...]``."""


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval; NaN bounds where there are none."""

    low: float
    point: float
    high: float


def mean(scores: np.ndarray) -> np.ndarray:
    """Arithmetic mean of ``[..., N]`` over the last axis."""
    return scores.mean(-1)


def median(scores: np.ndarray) -> np.ndarray:
    """Median of ``[..., N]`` over the last axis."""
    return np.median(scores, -1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the last axis: the mean without the lowest and highest quarter.

    As in the paper's code ``floor(N / 4)`` scores are left out at either end, so that up to three
    scores give their mean.

    Args:
        scores: ``[..., N]``.

    Returns:
        ``[...]``.
    """
    cut = scores.shape[-1] // 4
    ordered = np.sort(scores, -1)
    return ordered[..., cut : scores.shape[-1] - cut].mean(-1)


def normalise(score: np.ndarray | float, *, random: float, reference: float) -> np.ndarray:
    """Place scores on the scale where a random policy has 0 and a reference player 1.

    With a human as the reference this is the human-normalised score, with an expert policy the
    expert-normalised one.

    Args:
        score: Any shape.
        random: What a random policy gets.
        reference: What a human or an expert gets.

    Returns:
        ``(score - random) / (reference - random)``.

    Raises:
        ValueError: If both have the same score.
    """
    if random == reference:
        raise ValueError(f"random and reference must differ, both are {random}.")
    return (np.asarray(score, np.float64) - random) / (reference - random)


def stratified_bootstrap(
    strata: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    rng: np.random.Generator,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic of the pooled scores of several tasks.

    Seeds are drawn with replacement within each task, so that every resample has all tasks.

    Args:
        strata: For each task the scores of its seeds ``[N_task]``; the numbers may differ.
        statistic: What is estimated.
        rng: Source of the resamples.
        num_resamples: How many.
        confidence: Coverage that is aimed at.

    Returns:
        The interval; its bounds are NaN when no task has two seeds.

    Raises:
        ValueError: If a task has no score or ``confidence`` is not within (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie within (0, 1), got {confidence}.")
    if not strata or any(len(scores) == 0 for scores in strata):
        raise ValueError("Every task needs at least one score.")
    point = float(statistic(np.concatenate(strata)))
    if max(len(scores) for scores in strata) < 2:
        return Interval(np.nan, point, np.nan)
    resamples = np.concatenate(
        [scores[rng.integers(len(scores), size=(num_resamples, len(scores)))] for scores in strata],
        axis=-1,
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(statistic(resamples), (tail, 1.0 - tail))
    return Interval(float(low), point, float(high))


def bootstrap_band(
    values: np.ndarray,
    *,
    rng: np.random.Generator,
    num_resamples: int = 500,
    confidence: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean curve of several seeds with its pointwise percentile interval.

    Whole curves are drawn, so that a band is as smooth as they are. NaN stands for the steps that
    a seed did not reach.

    Args:
        values: ``[N, G]``, a curve for each of N seeds.
        rng: Source of the resamples.
        num_resamples: How many.
        confidence: Coverage that is aimed at.

    Returns:
        Low, mean and high, each ``[G]``; NaN where no seed has a value, and low and high also
        where only one has.
    """
    picks = rng.integers(len(values), size=(num_resamples, len(values)))
    # Resampled means as one product: how often each seed was drawn, over those with a value.
    counts = (picks[:, :, None] == np.arange(len(values))).sum(1).astype(np.float64)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (counts @ filled) / (counts @ known)
        middle = filled.sum(0) / known.sum(0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    several = known.sum(0) >= 2
    if several.any():
        low[several], high[several] = np.nanquantile(means[:, several], (tail, 1.0 - tail), axis=0)
    return low, middle, high


def paired_differences(
    treatment: Mapping[int, float], control: Mapping[int, float]
) -> dict[int, float]:
    """Subtract the control's score from the treatment's for every seed that both have.

    Args:
        treatment: Scores by seed.
        control: Scores by seed.

    Returns:
        Differences by seed, in the order of the seeds.
    """
    shared = sorted(treatment.keys() & control.keys())
    return {seed: treatment[seed] - control[seed] for seed in shared}


def probability_of_improvement(treatment: np.ndarray, control: np.ndarray) -> float:
    """Chance that a run of the treatment beats a run of the control; a tie counts half.

    Args:
        treatment: Scores ``[N]``.
        control: Scores ``[M]``.

    Returns:
        ``P(X > Y) + P(X = Y) / 2``, the Mann-Whitney statistic divided by ``N M``.
    """
    difference = treatment[:, None] - control[None, :]
    return float((np.sign(difference).mean() + 1.0) / 2.0)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of two lists ``[N]``; tied values share the mean of their ranks.

    Args:
        x: Values ``[N]``.
        y: Values ``[N]``.

    Returns:
        A number in [-1, 1]; NaN for fewer than two pairs or a constant list.
    """
    if len(x) < 2:
        return float("nan")
    x_rank, y_rank = _ranks(x), _ranks(y)
    x_rank, y_rank = x_rank - x_rank.mean(), y_rank - y_rank.mean()
    scale = float(np.sqrt((x_rank**2).sum() * (y_rank**2).sum()))
    return float((x_rank * y_rank).sum()) / scale if scale > 0.0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[place]
