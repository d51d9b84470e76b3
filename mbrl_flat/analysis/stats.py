"""Statistics over a few seeds: robust aggregates, intervals, tests and paired comparisons.

References:
    Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
    NeurIPS 2021, arXiv:2108.13264: interquartile mean, stratified bootstrap, probability of
    improvement (Sections 4.1 to 4.3).
"""

import math
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
        scores: One score for each of N runs, ``[..., N]``.

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
        score: Returns or other raw scores, any shape.
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
        num_resamples: Bootstrap samples; 2000 or more for a 95 % interval.
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
    drawn = statistic(resamples)
    quantiles = np.quantile if np.isnan(drawn).any() else _quantiles
    low, high = quantiles(drawn, (tail, 1.0 - tail))
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
        num_resamples: Bootstrap samples; 2000 or more for a 95 % interval.
        confidence: Coverage that is aimed at.

    Returns:
        Low, mean and high, each ``[G]``; NaN where no seed has a value, and low and high also
        where only one has.
    """
    picks = rng.integers(len(values), size=(num_resamples, len(values)))
    # Resampled means as one product: how often each seed was drawn, over those with a value.
    places = picks + len(values) * np.arange(num_resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=num_resamples * len(values))
    counts = counts.reshape(num_resamples, -1).astype(np.float64)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (counts @ filled) / (counts @ known)
        middle = filled.sum(0) / known.sum(0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    several = known.sum(0) >= 2
    if several.any():
        low[several], high[several] = _quantiles(means[:, several].T, (tail, 1.0 - tail))
    return low, middle, high


def _quantiles(values: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """``np.nanquantile`` over the last axis, by sorting, which is many times as fast."""
    ordered = np.sort(values, -1)  # what is not a number comes last
    last = np.count_nonzero(~np.isnan(ordered), axis=-1) - 1
    out: list[np.ndarray] = []
    for share in shares:
        place = share * last
        below, above = (
            np.take_along_axis(ordered, f(place).astype(int)[..., None], -1)[..., 0]
            for f in (np.floor, np.ceil)
        )
        t, width = place % 1.0, above - below
        # As numpy rounds it.
        out.append(np.where(t < 0.5, below + width * t, above - width * (1.0 - t)))
    return out


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
        treatment: Scores of the method in question, one a seed, ``[N]``.
        control: Scores of what it is compared with, ``[M]``.

    Returns:
        ``P(X > Y) + P(X = Y) / 2``, the Mann-Whitney statistic divided by ``N M``.
    """
    difference = treatment[:, None] - control[None, :]
    return float((np.sign(difference).mean() + 1.0) / 2.0)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of two lists ``[N]``; tied values share the mean of their ranks.

    Args:
        x: First quantity, ``[N]``, at least two values.
        y: Second quantity of the same runs, ``[N]``.

    Returns:
        A number in [-1, 1]; NaN for fewer than two pairs, a constant list, or a NaN in either list.

    Raises:
        ValueError: If the lists differ in length.
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must have the same length, got {len(x)} and {len(y)}.")
    if len(x) < 2 or np.isnan(x).any() or np.isnan(y).any():
        return float("nan")
    x_rank, y_rank = _ranks(x), _ranks(y)
    x_rank, y_rank = x_rank - x_rank.mean(), y_rank - y_rank.mean()
    scale = float(np.sqrt((x_rank**2).sum() * (y_rank**2).sum()))
    return float((x_rank * y_rank).sum()) / scale if scale > 0.0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[place]


def t_quantile(freedom: int, *, confidence: float = 0.95) -> float:
    """Half-width, in standard errors, of Student's two-sided interval.

    Args:
        freedom: Degrees of freedom, at least 1.
        confidence: Coverage of the interval.

    Returns:
        The ``(1 + confidence) / 2`` quantile of Student's t.
    """
    from scipy.special import stdtrit  # noqa: PLC0415  # slow to import

    return float(stdtrit(freedom, (1.0 + confidence) / 2.0))


def t_interval(values: Sequence[float] | np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Mean with Student's interval, for independent and roughly normal values.

    Args:
        values: One value for each seed ``[N]``.
        confidence: Coverage that is aimed at.

    Returns:
        The interval; its bounds are NaN for a single value, and all of it for none.
    """
    if len(values) == 0:
        return Interval(math.nan, math.nan, math.nan)
    middle = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(math.nan, middle, math.nan)
    half = t_quantile(len(values) - 1, confidence=confidence) * standard_error(values)
    return Interval(middle - half, middle, middle + half)


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean; NaN for fewer than two values."""
    count = len(values)
    if count < 2:
        return math.nan
    middle = math.fsum(values) / count
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (count - 1) / count)


def t_test(values: Sequence[float] | np.ndarray, bound: float = 0.0) -> float:
    """Two-sided p-value of Student's test that the mean is ``bound``.

    It is below 5 % exactly when the 95 % ``t_interval`` leaves out the bound.

    Args:
        values: One value for each seed ``[N]``.
        bound: The mean under the null hypothesis.

    Returns:
        The p-value; NaN for fewer than two values.
    """
    from scipy.special import stdtr  # noqa: PLC0415  # slow to import

    if len(values) < 2:
        return math.nan
    distance = abs(math.fsum(values) / len(values) - bound)
    error = standard_error(values)
    if error == 0.0:
        return 0.0 if distance > 0.0 else 1.0
    return float(2.0 * stdtr(len(values) - 1, -distance / error))


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p-values for the number of tests by the method of Benjamini and Hochberg (1995).

    Rejecting where the adjusted value is at most 0.05 keeps the expected share of false
    rejections at 5 %, for tests that are independent or positively dependent.

    Args:
        p_values: The p-values of one family ``[N]``, such as those of all claims of a study. NaN
            stands for a test that was not made; it does not count.

    Returns:
        Adjusted p-values ``[N]``, NaN where there was none.
    """
    from scipy.stats import false_discovery_control  # noqa: PLC0415  # slow to import

    adjusted = np.array(p_values, np.float64)
    known = np.isfinite(adjusted)
    if known.any():
        adjusted[known] = false_discovery_control(adjusted[known], method="bh")
    return adjusted
