"""Value errors of episodes that can be worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.value_error import (
    bias_interval,
    common_steps,
    discounted_returns,
    estimates_and_returns,
    planner_metrics,
    value_error,
    value_metrics,
)
from mbrl_flat.errors import UserError


def episode(reward, value, *, terminated, **rest):
    length = len(reward)
    return Episode(
        obs={"state": torch.zeros(length + 1, 1)},
        action=torch.zeros(length, 1),
        reward=torch.tensor(reward, dtype=torch.float64),
        terminated=terminated,
        value=torch.tensor(value, dtype=torch.float64),
        **rest,
    )


def test_three_steps_by_hand():
    """Returns 1 + 0.5 (2 + 0.5 * 4) = 3, 4, 4; errors +1, -1, +3."""
    result = value_error([episode([1.0, 2.0, 4.0], [4.0, 3.0, 7.0], terminated=True)], 0.5)

    assert result["bias"] == pytest.approx(1.0, abs=1e-12)
    assert result["rmse"] == pytest.approx(math.sqrt(11.0 / 3.0), abs=1e-12)
    assert result["rmse_normalised"] == pytest.approx(math.sqrt(11.0 / 3.0) / math.sqrt(2.0 / 9.0))
    assert result["spearman"] == pytest.approx(0.0, abs=1e-12)
    assert result["count"] == 3.0
    assert result["bootstrapped"] == 0.0


def test_exact_estimates_have_no_error_and_perfect_rank():
    reward = torch.linspace(0.0, 1.0, 30, dtype=torch.float64) ** 2
    value = discounted_returns(reward, discount=0.9)

    result = value_error([episode(reward.tolist(), value.tolist(), terminated=True)], 0.9)

    assert (result["bias"], result["rmse"]) == (0.0, 0.0)
    assert result["spearman"] == pytest.approx(1.0, abs=1e-12)


def test_a_positive_bias_is_overestimation():
    result = value_error([episode([1.0, 1.0], [9.0, 9.0], terminated=True)], 1.0)

    assert result["bias"] == pytest.approx(7.5, abs=1e-12)


def test_returns_obey_their_recursion_down_to_the_tail():
    reward = torch.rand(50, generator=torch.Generator().manual_seed(0))

    returns = discounted_returns(reward, discount=0.97, tail=5.0)

    following = torch.cat([returns[1:], torch.tensor([5.0], dtype=torch.float64)])
    torch.testing.assert_close(returns, reward.double() + 0.97 * following, rtol=1e-14, atol=0.0)


def test_time_limits_leave_out_the_steps_whose_tail_still_matters():
    """0.5^5 = 0.03 <= 0.05 < 0.5^4: only steps with at least five to go are judged."""
    cut = episode([1.0] * 8, list(range(8)), terminated=False)
    ended = episode([1.0] * 3, list(range(3)), terminated=True)

    dropped = common_steps([cut, ended], 0.5, truncation="drop")
    added = common_steps([cut, ended], 0.5, truncation="bootstrap")
    value, returns = estimates_and_returns(cut, 0.5, truncation="drop", num_steps=dropped)

    assert (dropped, added, common_steps([ended], 0.5)) == (4, 3, None)
    assert value.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert returns.tolist() == [2.0 - 0.5**7, 2.0 - 0.5**6, 2.0 - 0.5**5, 2.0 - 0.5**4]


def random_ends(num, *, seed=0):
    """Reward 1 a step, which ends with probability 0.05 or after 40 steps; V is exact."""
    rng = np.random.default_rng(seed)
    exact = 1.0 / (1.0 - 0.9 * 0.95)
    lengths = [int(rng.geometric(0.05)) for _ in range(num)]
    return exact, [
        episode([1.0] * min(k, 40), [exact] * min(k, 40), terminated=k <= 40) for k in lengths
    ]


def test_an_exact_critic_has_no_bias_where_episodes_end_or_are_cut():
    """Judging late steps only where the task ended by itself gave a bias of 11% of the value."""
    exact, episodes = random_ends(3000)

    added = value_error(episodes, 0.9)
    dropped = value_error(episodes, 0.9, truncation="drop")
    all_steps = value_error(episodes, 0.9, tolerance=1.0)

    for row in (added, all_steps):
        assert row["bias_low"] < 0.0 < row["bias_high"]
        assert abs(row["bias"]) < 0.01 * exact
        assert row["bootstrapped"] == 1.0
    assert 0.0 < dropped["bias"] < 0.05 * exact
    assert all_steps["count"] > 2 * added["count"]


@pytest.mark.parametrize("num", [3, 5, 10])
def test_the_interval_covers_the_bias_with_few_episodes(num):
    """Resampling episodes covered it in 78, 83 and 88% of cases instead of 95%."""
    rng = np.random.default_rng(0)
    found = [
        bias_interval([torch.full((20,), float(offset)) for offset in rng.normal(size=num)])
        for _ in range(1000)
    ]

    assert 0.93 < np.mean([interval.low <= 0.0 <= interval.high for interval in found]) < 0.97


@pytest.mark.parametrize("truncation", ["bootstrap", "drop"])
@pytest.mark.parametrize("limits", [(2,), (2, 4), (2, 3, 5), (3, 4)])
def test_an_exact_critic_has_no_bias_under_short_time_limits_that_differ(limits, truncation):
    """Half of the episodes end at each step, in exactly these proportions; V = 1 + gamma V / 2."""
    gamma = 0.9
    value, episodes = 1.0 / (1.0 - gamma / 2.0), []
    for limit in limits:
        for length in range(1, limit + 1):
            episodes += [
                episode([1.0] * length, [value] * length, terminated=True)
                for _ in range(2 ** (limit - length))
            ]
        episodes.append(episode([1.0] * limit, [value] * limit, terminated=False))
        episodes += episodes[-(2**limit) :] * (2 ** (max(limits) - limit) - 1)

    found = value_error(episodes, gamma, truncation=truncation)

    assert found["bias"] == pytest.approx(0.0, abs=1e-7)


def test_what_is_left_out_changes_returns_by_no_more_than_the_tolerance():
    """With rewards in [0, 1] the missing tail is at most tolerance / (1 - gamma)."""
    reward = torch.ones(600)
    endless = 1.0 / (1.0 - 0.99)

    cut = episode(reward.tolist(), [0.0] * 600, terminated=False)
    steps = common_steps([cut], 0.99, truncation="drop", tolerance=0.05)

    _, returns = estimates_and_returns(cut, 0.99, truncation="drop", num_steps=steps)

    assert len(returns) == 600 - 298
    assert float((endless - returns).max()) <= 0.05 * endless


def test_terminated_episodes_keep_every_step():
    value, _ = estimates_and_returns(episode([1.0] * 8, [0.0] * 8, terminated=True), 0.99)

    assert len(value) == 8


def test_returns_end_with_a_life_that_is_recorded_as_a_termination():
    """1 + 0.5 * 1 and 1 up to the end of the life; of the next one only the steps that count."""
    lost = torch.tensor([False, True] + [False] * 6)
    values = [float(t) for t in range(8)]
    cut = episode([1.0] * 8, values, terminated=False, life_lost=lost)
    over = episode([1.0] * 8, values, terminated=True, life_lost=lost)

    value, returns = estimates_and_returns(cut, 0.5, truncation="drop", num_steps=4)
    assert value.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert returns.tolist() == [1.5, 1.0, 2.0 - 0.5**5, 2.0 - 0.5**4]

    value, returns = estimates_and_returns(cut, 0.5, truncation="bootstrap")
    assert value.tolist() == values[:-1]
    assert returns.tolist() == [1.5, 1.0, *[2.0 + 5.0 * 0.5**k for k in (5, 4, 3, 2, 1)]]

    value, returns = estimates_and_returns(over, 0.5)
    assert value.tolist() == values
    assert returns.tolist() == [1.5, 1.0, *[2.0 - 0.5**k for k in (5, 4, 3, 2, 1, 0)]]


def test_bootstrapping_makes_consistent_estimates_exact():
    """For a reward of 1 for ever, V = 1 / (1 - gamma) everywhere, whatever the time limit."""
    endless = episode([1.0] * 6, [10.0] * 6, terminated=False)

    result = value_error([endless], 0.9, truncation="bootstrap")

    assert result["count"] == 5.0
    assert result["bootstrapped"] == 1.0
    assert result["rmse"] == pytest.approx(0.0, abs=1e-12)


def test_an_exact_estimate_errs_by_the_tail_where_it_is_dropped_and_not_at_all_where_it_is_added():
    """A reward of 1 for five horizons, as TD-MPC2's discount has it: 2.1% of the value."""
    endless = episode([1.0] * 500, [100.0] * 500, terminated=False)
    tails = [100.0 * 0.99**left for left in range(299, 501)]

    dropped = value_error([endless], 0.99, truncation="drop")
    added = value_error([endless], 0.99)

    assert dropped["bias"] == pytest.approx(np.mean(tails), rel=1e-9)
    assert dropped["bias"] == pytest.approx(2.13, abs=0.01)
    assert (dropped["count"], dropped["bootstrapped"]) == (202.0, 0.0)
    assert added["rmse"] == pytest.approx(0.0, abs=1e-9)
    assert (added["count"], added["bootstrapped"]) == (201.0, 1.0)


def test_short_truncated_episodes_fall_back_to_bootstrapping_and_say_so():
    short = episode([1.0] * 6, [10.0] * 6, terminated=False)

    result = value_metrics([short], 0.9)

    assert result["probe/value/bootstrapped"] == 1.0
    assert result["probe/value/bias"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("truncation", ["bootstrap", "drop"])
def test_a_short_episode_is_not_left_out_beside_one_that_ended(truncation):
    """Judging the other one alone would select on how an episode ended."""
    short = episode([1.0] * 6, [10.0] * 6, terminated=False)
    ended = episode([1.0, 2.0], [2.8, 2.0], terminated=True)

    result = value_error([short, ended], 0.9, truncation=truncation)

    assert (result["count"], result["bootstrapped"]) == (7.0, 1.0)
    assert result["bias"] == pytest.approx(0.0, abs=1e-12)


def test_errors_relative_to_the_returns_themselves():
    """Returns 3, 4, 4 and errors 1, -1, 3: relative to 11/3; variance 8/3 against 2/9."""
    result = value_error([episode([1.0, 2.0, 4.0], [4.0, 3.0, 7.0], terminated=True)], 0.5)

    assert result["rmse_relative"] == pytest.approx(math.sqrt(11.0 / 3.0) / (11.0 / 3.0))
    assert result["explained_variance"] == pytest.approx(1.0 - (8.0 / 3.0) / (2.0 / 9.0))


def test_a_constant_offset_leaves_all_variance_explained():
    reward = torch.linspace(0.0, 1.0, 30, dtype=torch.float64) ** 2
    value = discounted_returns(reward, discount=0.9) + 5.0

    result = value_error([episode(reward.tolist(), value.tolist(), terminated=True)], 0.9)

    assert result["explained_variance"] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "episodes",
    [[], [episode([1.0, 1.0], [], terminated=True)], [episode([1.0], [1.0], terminated=False)]],
    ids=["none", "no estimates", "one truncated step"],
)
def test_without_a_pair_there_are_no_metrics(episodes):
    assert value_error(episodes, 0.99) == {"count": 0.0}
    assert value_metrics(episodes, 0.99) == {}
    assert planner_metrics(episodes, 0.99) == {}


def test_without_spread_what_is_relative_to_it_is_absent():
    result = value_error([episode([0.0] * 4, [1.0, 2.0, 3.0, 4.0], terminated=True)], 0.9)

    assert set(result) == {"bias", "rmse", "count", "bootstrapped"}


def test_the_interval_is_over_episodes_not_steps():
    """All steps of an episode have the same error: ten episodes are ten draws, however long."""
    offsets = np.random.default_rng(0).normal(size=10)
    intervals = [
        bias_interval([torch.full((length,), float(offset)) for offset in offsets])
        for length in (2, 200)
    ]
    exact = stats.ttest_1samp(offsets, 0.0).confidence_interval(0.95)

    for found in intervals:
        assert found.point == pytest.approx(float(offsets.mean()), abs=1e-6)
        assert found.low == pytest.approx(exact.low, abs=1e-5)
        assert found.high == pytest.approx(exact.high, abs=1e-5)


def test_long_episodes_weigh_more_as_they_do_in_the_bias():
    """Without either episode the mean is 0 or 4: a jackknife standard error of 2."""
    found = bias_interval([torch.full((1,), 4.0), torch.zeros(3)])

    assert found.point == pytest.approx(1.0, abs=1e-12)
    assert found.high - found.point == pytest.approx(2.0 * stats.t.ppf(0.975, 1), rel=1e-9)


def test_too_few_episodes_have_no_interval():
    none, one = bias_interval([]), bias_interval([torch.ones(4), torch.ones(0)])

    assert math.isnan(none.point)
    assert one.point == 1.0
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_a_confidence_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"confidence must lie within \(0, 1\), got 1"):
        bias_interval([], confidence=1.0)


def test_several_episodes_have_bounds_around_their_bias():
    """Errors 1 and 3 with the same weight: a standard error of 1 and one degree of freedom."""
    episodes = [episode([0.0] * 2, [error] * 2, terminated=True) for error in (1.0, 3.0)]

    row = value_metrics(episodes, 0.9)

    assert row["probe/value/bias"] == 2.0
    half = float(stats.t.ppf(0.975, 1))
    assert row["probe/value/bias_low"] == pytest.approx(2.0 - half, rel=1e-9)
    assert planner_metrics(episodes, 0.9)["probe/planner/bias_high"] == pytest.approx(2.0 + half)
    assert value_metrics(episodes, 0.9) == row
    assert "probe/value/bias_low" not in value_metrics(episodes[:1], 0.9)


def test_an_unknown_treatment_of_time_limits_is_refused():
    with pytest.raises(UserError, match="did you mean 'drop'"):
        value_error([episode([1.0], [1.0], terminated=True)], 0.9, truncation="dropp")


def test_planner_and_policy_have_names_of_their_own():
    episodes = [episode([1.0, 2.0, 4.0], [4.0, 3.0, 7.0], terminated=True)]

    assert planner_metrics(episodes, 0.5)["probe/planner/bias"] == 1.0
    assert value_metrics(episodes, 0.5)["probe/value/bias"] == 1.0
    assert {"probe/value/rmse", "probe/value/spearman", "probe/value/count"} <= set(
        value_metrics(episodes, 0.5)
    )


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30).filter(
        lambda pairs: len({a for a, _ in pairs}) > 1 and len({b for _, b in pairs}) > 1
    )
)
def test_rank_correlation_with_ties_is_scipys(pairs):
    """With a discount of 0 the returns are the rewards."""
    value, reward = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]

    result = value_error([episode(reward, value, terminated=True)], 0.0)

    expected = float(stats.spearmanr(value, reward).statistic)
    assert result["spearman"] == pytest.approx(expected, abs=1e-12)
