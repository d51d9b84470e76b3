"""Verdicts follow from intervals, and intervals from Student's t."""

import math

import numpy as np
import pytest
from scipy import stats

from mbrl_flat.analysis.stats import benjamini_hochberg, standard_error, t_interval
from mbrl_flat.studies.framework import TrialRow, TrialRows, corrected, not_tested, sign_claim
from mbrl_flat.studies.framework.report import claims_csv, claims_markdown


def test_an_interval_is_the_textbook_s():
    values = [1.0, 4.0, 2.0, 2.5, 3.0]

    interval = t_interval(values)

    half = stats.t.ppf(0.975, 4) * stats.sem(values)
    assert interval == pytest.approx((2.5 - half, 2.5, 2.5 + half), rel=1e-12)
    assert standard_error(values) == pytest.approx(stats.sem(values))


def test_intervals_cover_the_true_mean_in_95_of_100_draws():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))

    covered = [low <= 3.0 <= high for low, _, high in map(t_interval, draws.tolist())]

    assert abs(sum(covered) / 4000 - 0.95) < 0.015


def test_one_value_has_no_interval_and_none_no_mean():
    assert math.isnan(t_interval([2.0]).low)
    assert t_interval([2.0]).point == 2.0
    assert math.isnan(t_interval([]).point)
    assert math.isnan(standard_error([1.0]))


@pytest.mark.parametrize(
    ("values", "bounds", "verdict", "note"),
    [
        ([1.0, 1.1, 0.9], {"above": 0.0}, "supported", ""),
        ([-1.0, -1.1, -0.9], {"above": 0.0}, "contradicted", ""),
        ([1.0, -1.1, 0.9], {"above": 0.0}, "inconclusive", ""),
        ([1.0, 1.1, 0.9], {"below": 2.0}, "supported", ""),
        ([1.0, 1.1, 0.9], {"above": 0.5, "below": 1.1}, "inconclusive", ""),
        ([1.0], {"above": 0.5}, "supported", ""),
        ([], {"above": 0.5}, "not tested", "no run"),
        ([1.0, math.nan, 0.9], {"above": 0.5}, "not tested", "1 of 3 values are not finite"),
        ([1.0, math.inf, 0.9], {"above": 0.5}, "not tested", "1 of 3 values are not finite"),
        ([math.inf, -math.inf], {"above": 0.5}, "not tested", "such as inf"),
    ],
)
def test_the_verdict_follows_from_the_whole_interval(values, bounds, verdict, note):
    claim = sign_claim("C1", "grows", "growth", values, **bounds)

    assert claim.verdict == verdict
    assert note in claim.note
    assert claim.num_seeds == (0 if verdict == "not tested" else len(values))


def test_a_paired_claim_looks_at_shared_seeds_alone():
    ours, theirs = (
        TrialRows([TrialRow(seed=seed, m=value) for seed, value in values.items()])
        for values in ({0: 5.0, 1: 6.0, 7: 99.0}, {0: 1.0, 1: 2.0, 3: 0.0})
    )

    claim = sign_claim("C", "s", "m", ours.minus(theirs, "m"), above=3.0)

    assert claim.num_seeds == 2
    assert claim.interval.point == 4.0
    assert claim.verdict == "supported"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(5.0, "supported"), (2.0, "contradicted")],
)
def test_a_single_number_is_held_against_its_range(value, verdict):
    claim = sign_claim("C", "s", "m", [value], num_seeds=2, above=4.0, below=15.0)

    assert (claim.verdict, claim.num_seeds) == (verdict, 2)


def test_a_claim_without_a_bound_is_a_mistake():
    with pytest.raises(ValueError, match="needs a bound"):
        sign_claim("C", "s", "m", [1.0])


def test_tables_have_no_number_where_none_was_measured():
    claims = [not_tested("C9", "it learns Dutch", "words", "no data")]

    assert "| **not tested** | 0 | - | words | not tested (no data) | - |" in claims_markdown(
        claims
    )
    assert claims_csv(claims).splitlines()[1] == (
        "C9,it learns Dutch,words,,,,0,not tested,,,not tested,no data"
    )


def test_a_table_of_claims_leaves_out_a_metric_that_the_claims_state():
    claims = [
        sign_claim("H", "lower: loss", "loss, change in %", [-1.0, -2.0, -3.0], below=0.0),
        sign_claim("G", "good: loss", "loss", [1.0, 2.0, 3.0], above=0.0),
    ]

    heads, _, *rows = claims_markdown(claims).splitlines()
    assert heads.startswith("| | claim | corrected verdict | seeds |")
    assert [row.split(" | ")[5] for row in rows] == ["change in %", ""]
    assert "measured" not in claims_markdown(claims[1:])


def test_a_p_value_is_that_of_the_t_test_against_the_deciding_bound():
    values = [1.0, 2.0, 4.0, 1.5]

    above = sign_claim("C", "s", "m", values, above=0.5)
    within = sign_claim("C", "s", "m", values, above=0.5, below=3.0)
    outside = sign_claim("C", "s", "m", values, above=3.0, below=9.0)

    at = {bound: stats.ttest_1samp(values, bound).pvalue for bound in (0.5, 3.0)}
    assert above.p_value == pytest.approx(at[0.5])
    assert within.p_value == pytest.approx(max(at.values()))
    assert outside.p_value == pytest.approx(at[3.0])
    assert math.isnan(sign_claim("C", "s", "m", [1.0], above=0.0).p_value)


@pytest.mark.parametrize("seed", range(20))
def test_a_claim_is_decided_exactly_where_its_p_value_is_below_5_percent(seed):
    values = np.random.default_rng(seed).normal(0.5, 0.6, 5).tolist()

    claim = sign_claim("C", "s", "m", values, above=0.0)

    assert (claim.verdict != "inconclusive") == (claim.p_value < 0.05)


def test_correction_follows_benjamini_and_hochberg():
    rng = np.random.default_rng(1)
    claims = [
        sign_claim(f"C{shift}", "s", "m", (shift + rng.normal(size=6)).tolist(), above=0.0)
        for shift in (0.0, 0.1, 0.8, 1.0, 1.5, 3.0)
    ]

    found = corrected([*claims, not_tested("C", "s", "m", "no data")])

    order = sorted(range(6), key=lambda i: claims[i].p_value)
    steps = [claims[i].p_value * 6 / rank for rank, i in enumerate(order, start=1)]
    expected = {i: min(1.0, *steps[rank:], steps[rank]) for rank, i in enumerate(order)}
    assert [claim.adjusted_p for claim in found[:6]] == pytest.approx(
        [expected[i] for i in range(6)]
    )
    assert found[6].corrected == "not tested"
    assert all(claim.corrected in (claim.verdict, "inconclusive") for claim in found)
    assert corrected([]) == []


def test_claims_that_were_not_planned_do_not_change_planned_ones():
    rng = np.random.default_rng(0)
    names = ("H1", "H2", "H3", "H4", "H5, not planned")
    draws = [rng.normal(i, 1.0, 6).tolist() for i in range(5)]
    claims = [sign_claim(n, "s", "m", x, above=0.0) for n, x in zip(names, draws, strict=True)]

    both = corrected(claims)

    assert both[:4] == corrected(claims[:4])
    assert both[4].adjusted_p == benjamini_hochberg([claim.p_value for claim in claims])[4]
