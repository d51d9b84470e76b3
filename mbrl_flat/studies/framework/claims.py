"""A paper's claim, what was measured, and the verdict.

A claim is supported where the whole 95 % interval lies within the claimed range, contradicted where
the whole interval lies outside, and inconclusive otherwise. The corrected verdict accounts for the
number of claims of a study: a claim whose p-value, adjusted by Benjamini and Hochberg over all
claims of the study, exceeds 5 % is inconclusive.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mbrl_flat.analysis.stats import (
    Interval,
    benjamini_hochberg,
    paired_differences,
    t_interval,
    t_test,
)

Verdict = Literal["supported", "contradicted", "inconclusive", "not tested"]
VERDICTS: tuple[Verdict, ...] = ("supported", "contradicted", "inconclusive", "not tested")

FALSE_DISCOVERY_RATE = 0.05
"""Share of false findings among the findings of a study that the correction allows."""

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
        verdict: From this claim's interval alone.
        note: Why, where the numbers do not say it by themselves.
        p_value: Of the two-sided t-test against the bound that decides; NaN without an interval.
        adjusted_p: The p-value adjusted for all claims of the study; NaN before ``corrected``.
        corrected: The verdict by the adjusted p-value; claims without one keep their verdict.
    """

    name: str
    statement: str
    metric: str
    interval: Interval
    num_seeds: int
    verdict: Verdict
    note: str = ""
    p_value: float = math.nan
    adjusted_p: float = math.nan

    @property
    def corrected(self) -> Verdict:
        """The verdict after correction for the number of claims."""
        return "inconclusive" if self.adjusted_p > FALSE_DISCOVERY_RATE else self.verdict


def corrected(claims: Sequence[Claim]) -> list[Claim]:
    """Adjust the p-values of a study's claims for their number (Benjamini and Hochberg, 1995).

    Args:
        claims: All claims of one study.

    Returns:
        The claims with ``adjusted_p``.
    """
    adjusted = benjamini_hochberg([claim.p_value for claim in claims])
    return [replace(claim, adjusted_p=float(p)) for claim, p in zip(claims, adjusted, strict=True)]


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
        note: Remark for the table.

    Returns:
        The claim. A single value is compared with the bounds itself; none is "not tested".

    Raises:
        ValueError: If no bound is given.
    """
    if above is None and below is None:
        raise ValueError("A claim about a sign needs a bound: give above or below.")
    texts = {"name": name, "statement": statement, "metric": metric, "note": note}
    return _claim(texts, values, len(values), _range(above, below))


def point_claim(
    name: str,
    statement: str,
    metric: str,
    value: float,
    *,
    num_seeds: int,
    above: float | None = None,
    below: float | None = None,
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
        note: Remark for the table.

    Returns:
        The claim.
    """
    values = [] if math.isnan(value) else [value]
    texts = {"name": name, "statement": statement, "metric": metric, "note": note}
    return _claim(texts, values, num_seeds, _range(above, below))


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
        note: Remark for the table.

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


def _range(above: float | None, below: float | None) -> tuple[float, float]:
    return -math.inf if above is None else above, math.inf if below is None else below


def _claim(
    texts: dict[str, Any], values: Sequence[float], num_seeds: int, bounds: tuple[float, float]
) -> Claim:
    if not values:
        reason = texts.pop("note") or "no run of it gave a number"
        return not_tested(**texts, reason=reason)
    floor, ceiling = bounds
    interval = t_interval(values)
    low = interval.point if math.isnan(interval.low) else interval.low
    high = interval.point if math.isnan(interval.high) else interval.high
    verdict: Verdict = "inconclusive"
    if low > floor and high < ceiling:
        verdict = "supported"
    elif high <= floor or low >= ceiling:
        verdict = "contradicted"
    return Claim(
        **texts,
        interval=interval,
        num_seeds=num_seeds,
        verdict=verdict,
        p_value=_p_value(values, floor, ceiling),
    )


def _p_value(values: Sequence[float], floor: float, ceiling: float) -> float:
    """Two-sided t-test of the mean against the bound that decides the verdict."""
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    # A mean within the range has to differ from both bounds, one outside from that it violates.
    inside = floor < mean < ceiling
    bounds = [floor, ceiling] if inside else [floor if mean <= floor else ceiling]
    return max(t_test(values, bound) for bound in bounds if math.isfinite(bound))
