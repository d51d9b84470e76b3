"""A paper's claim, what was measured, and whether it holds here.

A claim about a sign holds if the whole 95 % interval is on the claimed side. Everything else "does
not hold here", and the note tells an effect of the opposite sign from one that is not resolved.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mbrl_flat.analysis.stats import Interval, paired_differences
from mbrl_flat.studies.framework.intervals import mean_interval

Verdict = Literal["holds", "does not hold here", "not tested"]

_NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One line of the table of claims.

    Attributes:
        name: Short name, such as ``C1``.
        statement: What the paper, or the specification of the study, says.
        metric: What was measured, with its unit.
        interval: Mean and 95 % interval of the metric over seeds; NaN where there is none.
        num_seeds: Seeds behind it.
        verdict: Whether the claim holds here.
        note: Why, where the numbers do not say it by themselves.
    """

    name: str
    statement: str
    metric: str
    interval: Interval
    num_seeds: int
    verdict: Verdict
    note: str = ""


def sign_claim(
    name: str,
    statement: str,
    metric: str,
    values: Sequence[float],
    *,
    above: float | None = None,
    below: float | None = None,
    note: str = "",
) -> Claim:
    """Build a claim that a mean lies above, below, or between two bounds.

    Args:
        name: Short name.
        statement: The claim.
        metric: What ``values`` are.
        values: One for each seed.
        above: Lower bound of the claimed range.
        below: Upper bound.
        note: Put in front of what is said of the interval.

    Returns:
        The claim. A single value is held against the bounds itself; none is "not tested".

    Raises:
        ValueError: If no bound is given.
    """
    if above is None and below is None:
        raise ValueError("A claim about a sign needs a bound: give above or below.")
    if not values:
        return not_tested(name, statement, metric, note or "no run of it gave a number")
    interval = mean_interval(values)
    return _held_against(
        Claim(
            name=name,
            statement=statement,
            metric=metric,
            interval=interval,
            num_seeds=len(values),
            verdict="not tested",
            note=note,
        ),
        -math.inf if above is None else above,
        math.inf if below is None else below,
    )


def _held_against(claim: Claim, floor: float, ceiling: float) -> Claim:
    """Give a claim its verdict: the whole interval, or the single value, within the bounds."""
    interval = claim.interval
    low = interval.point if math.isnan(interval.low) else interval.low
    high = interval.point if math.isnan(interval.high) else interval.high
    if low > floor and high < ceiling:
        verdict, reason = "holds", ""
    elif high <= floor or low >= ceiling:
        verdict, reason = "does not hold here", "outside the claimed range"
    else:
        verdict, reason = "does not hold here", "not resolved: the interval reaches over the bound"
    parts = [part for part in (claim.note, reason) if part]
    return replace(claim, verdict=verdict, note="; ".join(parts))


def point_claim(
    name: str,
    statement: str,
    metric: str,
    value: float,
    *,
    num_seeds: int,
    above: float = -math.inf,
    below: float = math.inf,
    note: str = "",
) -> Claim:
    """Build a claim about one number that has no interval, such as a ratio of chosen settings.

    Args:
        name: Short name.
        statement: The claim.
        metric: What ``value`` is.
        value: The number; NaN is "not tested".
        num_seeds: Seeds that it rests on.
        above: Lower bound of the claimed range.
        below: Upper bound.
        note: Put in front of what is said of the number.

    Returns:
        The claim.
    """
    if math.isnan(value):
        return not_tested(name, statement, metric, note or "no run of it gave a number")
    claim = Claim(
        name=name,
        statement=statement,
        metric=metric,
        interval=Interval(math.nan, value, math.nan),
        num_seeds=num_seeds,
        verdict="not tested",
        note=note,
    )
    return _held_against(claim, above, below)


def paired_claim(
    name: str,
    statement: str,
    metric: str,
    treatment: Mapping[int, float],
    control: Mapping[int, float],
    *,
    above: float | None = None,
    below: float | None = None,
    note: str = "",
) -> Claim:
    """Build a claim about the difference of two settings over the seeds that both have.

    Args:
        name: Short name.
        statement: The claim.
        metric: What the difference is.
        treatment: Values by seed.
        control: Values by seed.
        above: Lower bound of the claimed difference.
        below: Upper bound.
        note: As in ``sign_claim``.

    Returns:
        The claim.
    """
    differences = list(paired_differences(treatment, control).values())
    return sign_claim(name, statement, metric, differences, above=above, below=below, note=note)


def not_tested(name: str, statement: str, metric: str, reason: str) -> Claim:
    """Build the line of a claim that was not put to a test, with the reason."""
    return Claim(
        name=name,
        statement=statement,
        metric=metric,
        interval=_NOTHING,
        num_seeds=0,
        verdict="not tested",
        note=reason,
    )
