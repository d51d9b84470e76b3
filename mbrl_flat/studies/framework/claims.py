"""A paper's claim, what was measured, and the verdict.

A claim is supported where the whole 95 % interval lies within the claimed range, contradicted where
the whole interval lies outside, and inconclusive otherwise. The corrected verdict accounts for the
number of claims of a study: a claim whose p-value, adjusted by Benjamini and Hochberg over all
claims of the study, exceeds 5 % is inconclusive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mbrl_flat.analysis.stats import (
    Interval,
    benjamini_hochberg,
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

    Claims that were added after a look at the results (``not planned`` in their name) are adjusted
    among all; they do not touch the planned ones, which they could carry below the bound.

    Args:
        claims: All claims of one study.

    Returns:
        The claims with ``adjusted_p``.
    """
    p_values = np.array([claim.p_value for claim in claims])
    planned = np.array(["not planned" not in claim.name for claim in claims], bool)
    adjusted = benjamini_hochberg(p_values)
    adjusted[planned] = benjamini_hochberg(p_values[planned])
    return [replace(claim, adjusted_p=float(p)) for claim, p in zip(claims, adjusted, strict=True)]


def sign_claim(
    name: str,
    statement: str,
    metric: str,
    values: Sequence[float],
    *,
    above: float = -math.inf,
    below: float = math.inf,
    note: str = "",
    num_seeds: int | None = None,
) -> Claim:
    """Build a claim that a mean lies above, below, or between two bounds.

    Args:
        name: Short name.
        statement: The claim.
        metric: What ``values`` are.
        values: One for each seed; for a paired comparison the differences (``TrialRows.minus``).
        above: Lower bound of the claimed range.
        below: Upper bound.
        note: Remark for the table.
        num_seeds: Seeds behind the values, where they are not one for each.

    Returns:
        The claim. A single value is compared with the bounds itself; without values, or with one
        that is not finite, it is "not tested".

    Raises:
        ValueError: If no bound is given.
    """
    if math.isinf(above) and math.isinf(below):
        raise ValueError("A claim about a sign needs a bound: give above or below.")
    if not values:
        return not_tested(name, statement, metric, note or "no run of it gave a number")
    if odd := [value for value in values if not math.isfinite(value)]:
        reason = f"{len(odd)} of {len(values)} values are not finite, such as {odd[0]}"
        return not_tested(name, statement, metric, reason)
    interval = t_interval(values)
    low = interval.point if math.isnan(interval.low) else interval.low
    high = interval.point if math.isnan(interval.high) else interval.high
    verdict: Verdict = "inconclusive"
    if low > above and high < below:
        verdict = "supported"
    elif high <= above or low >= below:
        verdict = "contradicted"
    return Claim(
        name=name,
        statement=statement,
        metric=metric,
        interval=interval,
        num_seeds=len(values) if num_seeds is None else num_seeds,
        verdict=verdict,
        note=note,
        p_value=_p_value(values, above, below),
    )


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


def _p_value(values: Sequence[float], floor: float, ceiling: float) -> float:
    """Two-sided t-test of the mean against the bound that decides the verdict."""
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    # A mean within the range has to differ from both bounds, one outside from that it violates.
    inside = floor < mean < ceiling
    bounds = [floor, ceiling] if inside else [floor if mean <= floor else ceiling]
    return max(t_test(values, bound) for bound in bounds if math.isfinite(bound))
