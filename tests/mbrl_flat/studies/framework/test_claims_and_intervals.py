"""Verdicts follow from intervals, and intervals from Student's t."""

import math

import numpy as np
import pytest
from scipy import stats

from mbrl_flat.studies.framework import (
    mean_interval,
    not_tested,
    paired_claim,
    point_claim,
    sign_claim,
    standard_error,
)
from mbrl_flat.studies.framework.intervals import t_quantile
from mbrl_flat.studies.framework.report import claims_csv, claims_markdown


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 10, 11, 15, 30, 100, 1000])
def test_quantiles_are_those_of_student_s_t(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


def test_an_interval_is_the_textbook_s():
    values = [1.0, 4.0, 2.0, 2.5, 3.0]

    interval = mean_interval(values)

    half = stats.t.ppf(0.975, 4) * stats.sem(values)
    assert interval == pytest.approx((2.5 - half, 2.5, 2.5 + half), rel=1e-4)
    assert standard_error(values) == pytest.approx(stats.sem(values))


def test_intervals_cover_the_true_mean_in_95_of_100_draws():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))

    covered = [low <= 3.0 <= high for low, _, high in map(mean_interval, draws.tolist())]

    assert abs(sum(covered) / 4000 - 0.95) < 0.015


def test_one_value_has_no_interval_and_none_no_mean():
    assert math.isnan(mean_interval([2.0]).low)
    assert mean_interval([2.0]).point == 2.0
    assert math.isnan(mean_interval([]).point)
    assert math.isnan(standard_error([1.0]))


@pytest.mark.parametrize(
    ("values", "bounds", "verdict", "note"),
    [
        ([1.0, 1.1, 0.9], {"above": 0.0}, "holds", ""),
        ([-1.0, -1.1, -0.9], {"above": 0.0}, "does not hold here", "outside the claimed range"),
        ([1.0, -1.1, 0.9], {"above": 0.0}, "does not hold here", "not resolved"),
        ([1.0, 1.1, 0.9], {"below": 2.0}, "holds", ""),
        ([1.0, 1.1, 0.9], {"above": 0.5, "below": 1.1}, "does not hold here", "not resolved"),
        ([1.0], {"above": 0.5}, "holds", ""),
        ([], {"above": 0.5}, "not tested", "no run"),
    ],
)
def test_a_claim_holds_only_where_the_whole_interval_is_in_its_range(values, bounds, verdict, note):
    claim = sign_claim("C1", "grows", "growth", values, **bounds)

    assert claim.verdict == verdict
    assert note in claim.note
    assert claim.num_seeds == len(values)


def test_a_paired_claim_looks_at_shared_seeds_alone():
    claim = paired_claim(
        "C", "s", "m", {0: 5.0, 1: 6.0, 7: 99.0}, {0: 1.0, 1: 2.0, 3: 0.0}, above=3.0
    )

    assert claim.num_seeds == 2
    assert claim.interval.point == 4.0
    assert claim.verdict == "holds"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(5.0, "holds"), (2.0, "does not hold here"), (math.nan, "not tested")],
)
def test_a_single_number_is_held_against_its_range(value, verdict):
    claim = point_claim("C", "s", "m", value, num_seeds=2, above=4.0, below=15.0)

    assert claim.verdict == verdict


def test_a_claim_without_a_bound_is_a_mistake():
    with pytest.raises(ValueError, match="needs a bound"):
        sign_claim("C", "s", "m", [1.0])


def test_tables_have_no_number_where_none_was_measured():
    claims = [not_tested("C9", "it learns Dutch", "words", "no data")]

    assert "| - | **not tested** (no data) |" in claims_markdown(claims)
    assert claims_csv(claims).splitlines()[1] == "C9,it learns Dutch,words,,,,0,not tested,no data"
