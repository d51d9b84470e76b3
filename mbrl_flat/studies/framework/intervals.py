"""Mean and 95 % interval of a handful of seeds, by Student's t."""

import math
from collections.abc import Sequence

from scipy import stats

from mbrl_flat.analysis.stats import Interval


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean; NaN for fewer than two values."""
    count = len(values)
    if count < 2:
        return math.nan
    mean = math.fsum(values) / count
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean with its 95 % interval, for independent and roughly normal values.

    Args:
        values: One for each seed.

    Returns:
        The interval; its bounds are NaN for a single value, and all of it for none.
    """
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(math.nan, mean, math.nan)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * standard_error(values)
    return Interval(mean - half, mean, mean + half)
