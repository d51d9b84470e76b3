import numpy as np
import pytest

from mbrl_flat.analysis.stats import (
    _quantiles,
    benjamini_hochberg,
    bootstrap_band,
    iqm,
    mean,
    median,
    normalise,
    paired_differences,
    probability_of_improvement,
    spearman,
    stratified_bootstrap,
    t_interval,
    t_quantile,
    t_test,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),
        ([0.0, 1.0, 3.0, 1000.0], 2.0),
        ([-50.0, 1.0, 2.0, 3.0, 99.0], 2.0),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4.5),
    ],
)
def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end(scores, expected):
    assert iqm(np.array(scores)) == pytest.approx(expected, abs=1e-12)


def test_the_interquartile_mean_works_along_the_last_axis(rng):
    scores = rng.normal(size=(3, 4, 9))

    together = iqm(scores)

    assert together.shape == (3, 4)
    assert together[1, 2] == iqm(scores[1, 2])


def test_a_random_policy_has_normalised_score_zero_and_the_reference_one():
    scores = normalise(np.array([10.0, 30.0, 50.0]), random=10.0, reference=30.0)

    np.testing.assert_allclose(scores, [0.0, 1.0, 2.0], atol=1e-12)


def test_a_reference_like_the_random_policy_is_refused():
    with pytest.raises(ValueError, match="must differ"):
        normalise(1.0, random=5.0, reference=5.0)


def test_the_interval_of_equal_scores_is_a_point(rng):
    interval = stratified_bootstrap([np.full(5, 3.0)], iqm, rng=rng)

    assert interval == (3.0, 3.0, 3.0)


def test_one_seed_has_an_estimate_but_no_interval(rng):
    interval = stratified_bootstrap([np.array([4.0])], mean, rng=rng)

    assert interval.point == 4.0
    assert np.isnan([interval.low, interval.high]).all()


def test_seeds_are_drawn_within_their_own_task(rng):
    """Tasks whose seeds agree add nothing to the interval, however far apart the tasks are."""
    strata = [np.full(4, 0.0), np.full(4, 1000.0)]

    interval = stratified_bootstrap(strata, mean, rng=rng)

    assert interval == (500.0, 500.0, 500.0)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    """Percentile intervals of 20 normal scores: about 93% for 95%, in 300 repetitions."""
    data, resampling = np.random.default_rng(1), np.random.default_rng(2)
    covered = 0

    for _ in range(300):
        scores = data.normal(5.0, 2.0, size=20)
        interval = stratified_bootstrap([scores], mean, rng=resampling, num_resamples=400)
        covered += interval.low <= 5.0 <= interval.high

    assert 0.89 <= covered / 300 <= 0.97


def test_the_same_generator_gives_the_same_interval():
    scores = [np.arange(6.0)]

    first, second = (
        stratified_bootstrap(scores, median, rng=np.random.default_rng(3)) for _ in range(2)
    )

    assert first == second


@pytest.mark.parametrize("strata", [[], [np.array([])]])
def test_a_task_without_scores_is_refused(strata, rng):
    with pytest.raises(ValueError, match="at least one score"):
        stratified_bootstrap(strata, mean, rng=rng)


def test_the_band_of_two_seeds_lies_between_them(rng):
    values = np.array([[0.0, 1.0], [2.0, 5.0]])

    low, middle, high = bootstrap_band(values, rng=rng)

    np.testing.assert_allclose(middle, [1.0, 3.0], atol=1e-12)
    np.testing.assert_allclose(low, values[0], atol=1e-12)
    np.testing.assert_allclose(high, values[1], atol=1e-12)


def test_a_band_ends_where_fewer_than_two_seeds_are_left(rng):
    values = np.array([[1.0, 1.0, np.nan], [3.0, np.nan, np.nan]])

    low, middle, high = bootstrap_band(values, rng=rng)

    np.testing.assert_array_equal(middle, [2.0, 1.0, np.nan])
    np.testing.assert_array_equal(np.isfinite(low), [True, False, False])
    np.testing.assert_array_equal(np.isfinite(high), [True, False, False])


def test_quantiles_are_those_of_numpy_to_the_last_bit(rng):
    values = rng.normal(size=(40, 500)) * 10.0 ** rng.integers(-5, 5, (40, 500))
    values[::3, : rng.integers(400)] = np.nan
    values[1] = np.nan
    values[1, 7] = 2.0

    for shares in ((0.025, 0.975), (0.0, 1.0), (0.1, 0.5)):
        expected = np.nanquantile(values, shares, axis=-1)
        np.testing.assert_array_equal(_quantiles(values, shares), expected)


def test_the_band_agrees_with_the_interval_at_each_step(rng):
    values = rng.normal(size=(8, 3))

    low, middle, high = bootstrap_band(values, rng=rng, num_resamples=20_000)

    for step in range(3):
        interval = stratified_bootstrap([values[:, step]], mean, rng=rng, num_resamples=20_000)
        assert middle[step] == pytest.approx(interval.point, abs=1e-12)
        # Two draws of 20,000 resamples: quantiles agree to about two percent of the spread.
        assert low[step] == pytest.approx(interval.low, abs=0.03)
        assert high[step] == pytest.approx(interval.high, abs=0.03)


def test_differences_are_taken_over_shared_seeds_only():
    differences = paired_differences({3: 5.0, 1: 2.0, 9: 0.0}, {1: 1.0, 3: 7.0, 4: 0.0})

    assert differences == {1: 1.0, 3: -2.0}
    assert list(differences) == [1, 3]


@pytest.mark.parametrize(
    ("treatment", "control", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0], [1.0, 2.0], 0.0),
        ([1.0, 1.0], [1.0], 0.5),
        ([1.0, 3.0], [2.0, 3.0], 0.375),
    ],
)
def test_probability_of_improvement_counts_wins_and_half_the_ties(treatment, control, expected):
    assert probability_of_improvement(np.array(treatment), np.array(control)) == expected


def test_probabilities_of_improvement_in_both_directions_sum_to_one(rng):
    x, y = rng.integers(5, size=7).astype(float), rng.integers(5, size=9).astype(float)

    total = probability_of_improvement(x, y) + probability_of_improvement(y, x)

    assert total == pytest.approx(1.0, abs=1e-12)


def test_rank_correlation_sees_only_the_order(rng):
    x = rng.normal(size=20)

    assert spearman(x, np.exp(3 * x)) == pytest.approx(1.0, abs=1e-12)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0, abs=1e-12)


def test_rank_correlation_shares_ranks_between_ties():
    """Ranks 1.5 1.5 3 against 1 2 3: covariance 1.5, norms sqrt(1.5) and sqrt(2)."""
    expected = 1.5 / np.sqrt(1.5 * 2.0)

    assert spearman(np.array([0.0, 0.0, 5.0]), np.arange(3.0)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("x", [[], [1.0], [2.0, 2.0]])
def test_rank_correlation_of_nothing_or_a_constant_is_undefined(x):
    assert np.isnan(spearman(np.array(x), np.arange(float(len(x)))))


@pytest.mark.parametrize("place", [0, 2])
def test_rank_correlation_with_a_nan_is_undefined(place):
    x = np.arange(4.0)
    x[place] = np.nan

    assert np.isnan(spearman(x, np.arange(4.0)))
    assert np.isnan(spearman(np.arange(4.0), x))


def test_rank_correlation_refuses_lists_of_unequal_length():
    with pytest.raises(ValueError, match="same length, got 3 and 2"):
        spearman(np.arange(3.0), np.arange(2.0))


def test_the_quantile_of_t_with_one_degree_is_that_of_the_cauchy_distribution():
    """F(x) = 1/2 + arctan(x) / pi, so the 97.5 % quantile is tan(0.475 pi)."""
    assert t_quantile(1) == pytest.approx(np.tan(0.475 * np.pi), rel=1e-12)
    assert t_quantile(10**9) == pytest.approx(1.959963985, rel=1e-8)


def test_the_interval_of_two_values_is_that_of_one_degree_of_freedom():
    low, middle, high = t_interval([1.0, 3.0])

    # Standard error |3 - 1| / 2.
    assert middle == 2.0
    assert high - middle == pytest.approx(np.tan(0.475 * np.pi), rel=1e-12)
    assert low == pytest.approx(4.0 - high, rel=1e-12)


def test_intervals_of_one_value_and_of_none():
    np.testing.assert_array_equal(t_interval([2.0]), [np.nan, 2.0, np.nan])
    np.testing.assert_array_equal(t_interval([]), [np.nan] * 3)
    assert np.isnan(t_test([2.0]))


@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_is_five_percent_where_the_interval_ends(rng, seed):
    values = np.random.default_rng(seed).normal(size=3 + seed)
    low, middle, high = t_interval(values)

    assert t_test(values, low) == pytest.approx(0.05, rel=1e-9)
    assert t_test(values, high) == pytest.approx(0.05, rel=1e-9)
    assert t_test(values, middle) == pytest.approx(1.0, rel=1e-9)


def test_equal_values_differ_from_every_other_mean():
    assert t_test([1.0, 1.0], 1.0) == 1.0
    assert t_test([1.0, 1.0], 0.0) == 0.0


def test_adjusted_p_values_are_smallest_p_times_tests_over_rank():
    """min over j >= i of p_(j) m / j, with m = 4: .01*4, .02*2, .04*4/3 and .5."""
    adjusted = benjamini_hochberg([0.04, 0.01, 0.5, 0.02])

    np.testing.assert_allclose(adjusted, [0.16 / 3.0, 0.04, 0.5, 0.04], rtol=1e-12)


def test_tests_that_were_not_made_do_not_count():
    adjusted = benjamini_hochberg([np.nan, 0.03, 0.02, np.nan])

    np.testing.assert_allclose(adjusted, [np.nan, 0.03, 0.03, np.nan], rtol=1e-12)
    assert benjamini_hochberg([]).shape == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_the_adjusted_values_reject_what_the_step_up_procedure_rejects(seed):
    """Reject the k smallest, k the largest rank with p_(k) <= 0.05 k / m."""
    p = np.random.default_rng(seed).beta(0.3, 1.5, size=40)
    ordered = np.sort(p)
    ranks = np.flatnonzero(ordered <= 0.05 * np.arange(1, 41) / 40)
    threshold = ordered[ranks[-1]] if len(ranks) > 0 else -1.0

    np.testing.assert_array_equal(benjamini_hochberg(p) <= 0.05, p <= threshold)
