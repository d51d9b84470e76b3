"""Mean and 95 % interval of a handful of seeds, by Student's t."""

import math
from collections.abc import Sequence

from mbrl_flat.analysis.stats import Interval

# 97.5 % quantiles of Student's t with 1 to 10 degrees of freedom.
_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_NORMAL = 1.959964


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t, to 1e-3.

    Args:
        freedom: Degrees of freedom, at least 1.

    Returns:
        The quantile: tabulated up to 10, by the Cornish-Fisher expansion beyond.
    """
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    z, n = _NORMAL, float(freedom)
    first = (z**3 + z) / (4.0 * n)
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * n**2)
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / (384.0 * n**3)
    return z + first + second + third


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
    half = t_quantile(len(values) - 1) * standard_error(values)
    return Interval(mean - half, mean, mean + half)
