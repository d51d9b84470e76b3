import numpy as np
import pytest

from mbrl_flat.analysis.stats import mean
from mbrl_flat.compare.axes import common_point
from mbrl_flat.compare.columns import Match, area_under_curve, final
from mbrl_flat.compare.comparison import compare_runs
from mbrl_flat.compare.curves import average, published, scatter_data
from mbrl_flat.compare.groups import group_runs
from mbrl_flat.compare.runs import EMPTY, Series, load_run
from mbrl_flat.compare.summary import (
    aggregate_over_tasks,
    compare_returns,
    present_columns,
    summarize_groups,
)
from mbrl_flat.errors import UserError

AT_100 = Match(axis="steps", places={"steps": np.array([100.0])})


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def load(make_run):
    return lambda *args, **kwargs: load_run(make_run(*args, **kwargs))


def grouped(runs):
    return group_runs(runs)[0]


def summarized(groups, rng):
    return summarize_groups(groups, statistic=mean, baselines={}, rng=rng)


def test_the_final_value_is_the_mean_over_the_last_tenth():
    series = Series(np.arange(1.0, 21.0), np.arange(1.0, 21.0))

    assert final(series) == 19.5
    assert final(Series(np.array([3.0]), np.array([7.0]))) == 7.0
    assert np.isnan(final(EMPTY))


def test_final_values_are_means_over_the_share_that_was_asked_for(load):
    """Evaluations at 100 and 200 of 200 steps: in the last half is the second alone."""
    adam = load("adam", returns=(5, 10, 20), metrics={"probe/value/rmse": 2.0})
    sam = load("sam", returns=(5, 30, 40), rows=[(150, {"probe/value/rmse": 8.0})])

    for last, ours, theirs in ((0.5, 20.0, 40.0), (0.6, 15.0, 35.0), (1.0, 15.0, 35.0)):
        found = compare_runs([adam, sam], last=last)
        returns = [row.cells["final_return"].by_seed[0] for row in found.rows]
        assert returns == [ours, theirs]
        assert [row.cells["value_rmse"].by_seed[0] for row in found.rows] == [2.0, 8.0]
        assert found.rows[1].versus is not None
        assert found.rows[1].versus.difference.point == pytest.approx(20.0, abs=1e-12)


@pytest.mark.parametrize("last", [0.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(load, last):
    with pytest.raises(UserError, match="above 0 and at most 1, not"):
        compare_runs([load()], last=last)


def test_the_area_under_a_line_is_the_height_of_its_middle():
    steps = np.array([0.0, 1.0, 4.0, 10.0])

    assert area_under_curve(Series(steps, 2.0 * steps)) == pytest.approx(10.0, abs=1e-12)
    assert np.isnan(area_under_curve(EMPTY))


def test_the_common_step_is_the_last_that_every_begun_run_evaluated(load):
    runs = [
        load(seed=0, returns=(0, 1, 2)),
        load(seed=1, returns=(0, 1)),
        load(seed=2, returns=(0,)),
    ]

    assert common_point(runs, "steps") == 100.0
    assert common_point(runs, "frames") == 200.0
    assert np.isnan(common_point(runs, "evaluations"))


def test_a_run_that_stopped_early_does_not_lower_the_return_of_the_others(load, rng):
    runs = [load("adam", returns=(0, 10)), load("sam", returns=(0, 20, 90))]

    rows = summarized(grouped(runs), rng)

    assert [row.cells["final_return"].interval.point for row in rows] == [10.0, 90.0]
    assert [row.cells["return_at_common_point"].interval.point for row in rows] == [10.0, 20.0]


def test_a_run_that_was_never_evaluated_after_its_start_is_not_held_against_others(load, rng):
    """Its return before learning must not pass for a result at the common step."""
    baseline, begun = grouped([load("adam", returns=(50, 10)), load("sam", returns=(50,))])

    rows = summarized([baseline, begun], rng)

    assert rows[1].cells["return_at_common_point"].by_seed == {}
    assert rows[1].cells["area_under_curve"].by_seed == {}
    assert compare_returns(begun, baseline, AT_100, rng=rng).seeds == 0


def test_the_common_step_has_a_column_only_where_runs_end_at_different_steps(load, rng):
    equal = summarized(grouped([load("adam"), load("sam")]), rng)
    unequal = summarized(grouped([load("adam"), load("sam", returns=(0, 1, 2))]), rng)

    assert "return_at_common_point" not in [column.key for column in present_columns(equal)]
    assert "return_at_common_point" in [column.key for column in present_columns(unequal)]


def test_a_metric_of_one_run_is_a_column_with_a_gap_for_the_others(load, rng):
    sharp = load("sam", metrics={"probe/sharpness/lambda_max": 5.0})

    rows = summarized(grouped([load("adam"), sharp]), rng)

    assert "lambda_max" in [column.key for column in present_columns(rows)]
    assert [row.cells["lambda_max"].by_seed for row in rows] == [{}, {0: 5.0}]


def test_a_group_is_held_against_the_baseline_seed_by_seed(load, rng):
    adam = [load("adam", seed=seed, returns=(0, value)) for seed, value in ((0, 1), (1, 5), (2, 9))]
    sam = [load("sam", seed=seed, returns=(0, value)) for seed, value in ((1, 7), (2, 11), (3, 0))]
    baseline, treatment = grouped([*adam, *sam])

    versus = compare_returns(treatment, baseline, AT_100, rng=rng)

    assert versus.difference == (2.0, 2.0, 2.0)
    assert versus.seeds == 2
    assert np.isnan(versus.improvement)


def test_the_probability_of_improvement_needs_five_seeds_of_both(load, rng):
    """Against 0, 2, 4, 6, 8, returns of 1, 3, 5, 7, 9 win 15 of 25 pairs."""
    runs = [load("adam", seed=s, returns=(0, 2 * s)) for s in range(5)]
    runs += [load("sam", seed=s, returns=(0, 2 * s + 1)) for s in range(5)]
    baseline, treatment = grouped(runs)

    versus = compare_returns(treatment, baseline, AT_100, rng=rng)

    assert versus.improvement == 0.6


def test_groups_without_a_shared_seed_have_no_difference(load, rng):
    baseline, treatment = grouped([load("adam", seed=0), load("sam", seed=1)])

    versus = compare_returns(treatment, baseline, AT_100, rng=rng)

    assert versus.seeds == 0
    assert np.isnan(versus.difference.point)


def test_normalised_scores_are_pooled_over_shared_tasks_only(load, rng):
    def run(optimizer, task, score):
        return load(optimizer, task=task, metrics={"eval/normalised_score": score})

    runs = [
        run("adam", "a", 0.2),
        run("adam", "b", 0.4),
        run("sam", "a", 0.5),
        run("sam", "b", 0.7),
    ]
    runs.append(run("sam", "c", 100.0))

    aggregate, tasks = aggregate_over_tasks(summarized(grouped(runs), rng), rng=rng)

    assert tasks == ["a", "b"]
    assert aggregate["adam"].point == pytest.approx(0.3, abs=1e-12)
    assert aggregate["sam"].point == pytest.approx(0.6, abs=1e-12)


def test_a_curve_ends_where_less_than_half_of_its_seeds_go_on(load, rng):
    runs = [load(seed=s, returns=(0, 1, 2, 3, 4)[: 3 + 2 * (s == 0)]) for s in range(3)]

    curve = average(grouped(runs)[0], "eval/return_mean", axis="steps", rng=rng)

    assert curve is not None
    assert curve.x.tolist() == [0.0, 100.0, 200.0]
    assert [len(series.steps) for series in curve.seeds] == [5, 3, 3]


def test_seeds_of_unequal_length_are_averaged_where_they_are(load, rng):
    runs = [load(seed=0, returns=(0, 10)), load(seed=1, returns=(20, 30, 40))]

    curve = average(grouped(runs)[0], "eval/return_mean", axis="steps", rng=rng)

    assert curve is not None
    assert curve.x.tolist() == [0.0, 100.0, 200.0]
    assert curve.mean.tolist() == [10.0, 20.0, 40.0]
    assert np.isnan(curve.low).all()


@pytest.mark.parametrize(("num_seeds", "banded"), [(4, False), (5, True)])
def test_few_seeds_are_drawn_as_they_are_and_more_of_them_as_a_band(load, rng, num_seeds, banded):
    runs = [load(seed=seed, returns=(0, seed)) for seed in range(num_seeds)]

    curve = average(grouped(runs)[0], "eval/return_mean", axis="steps", rng=rng)

    assert curve is not None
    assert curve.mean.tolist() == [0.0, (num_seeds - 1) / 2]
    assert np.isfinite([*curve.low, *curve.high]).all() == banded
    assert len(curve.seeds) == (0 if banded else num_seeds)


def test_frames_are_steps_times_the_action_repeat(load, rng):
    curve = average(grouped([load()])[0], "eval/return_mean", axis="frames", rng=rng)

    assert curve is not None
    assert curve.x.tolist() == [0.0, 200.0]


def test_a_scatter_has_one_point_for_each_run_that_has_both_metrics(load):
    runs = [
        load("sam", seed=i, returns=(0, value), metrics={"probe/sharpness/sam_gap": -value})
        for i, value in enumerate((1.0, 5.0, 3.0, 2.0, 4.0))
    ]

    found = scatter_data(
        grouped([*runs, load("adam")]), "probe/sharpness/sam_gap", "eval/return_mean"
    )

    assert found is not None
    assert len(found.points) == 5
    assert found.correlation == pytest.approx(-1.0, abs=1e-12)
    few = scatter_data(grouped(runs[:4]), "probe/sharpness/sam_gap", "eval/return_mean")
    assert few is not None
    assert np.isnan(few.correlation)


def test_a_scatter_is_of_the_share_that_was_asked_for(load):
    runs = grouped([load(returns=(0, 10, 20), metrics={"probe/sharpness/sam_gap": 1.0})])

    for last, y in ((0.1, 20.0), (1.0, 15.0)):
        found = scatter_data(runs, "probe/sharpness/sam_gap", "eval/return_mean", last=last)
        assert found is not None
        assert found.points[0][2:] == (1.0, y)


def test_published_curves_end_where_the_runs_end_and_are_counted_in_steps(load):
    """The runs go to 1.5M frames, two frames a step: 0.5M and 1M frames are within reach."""
    groups = grouped(
        [load(task="dog-run", returns=(), rows=[(750_000, {"eval/return_mean": 1.0})])]
    )

    (curve,) = published(["tdmpc2"], groups, "steps")

    assert curve.x.tolist() == [250_000.0, 500_000.0]
    assert published([], groups, "steps") == []


def test_a_run_that_was_measured_at_its_start_alone_has_no_final_value(load, rng):
    runs = [load(seed=0, returns=(10,)), load(seed=1, returns=(10, 600))]

    (row,) = summarized(grouped(runs), rng)

    assert row.cells["final_return"].by_seed == {1: 600.0}
