"""Runs compared at equal steps, frames, gradient evaluations or time."""

import csv
import io

import numpy as np
import pytest

from mbrl_flat.compare.axes import common_point, scaled
from mbrl_flat.compare.comparison import compare_runs
from mbrl_flat.compare.groups import group_runs
from mbrl_flat.compare.normalise import with_normalised_scores
from mbrl_flat.compare.page import render_page
from mbrl_flat.compare.runs import load_run
from mbrl_flat.compare.tables import to_csv, to_markdown
from mbrl_flat.errors import UserError


@pytest.fixture
def load(make_run):
    """A run whose log has its cost: ``evaluations`` a step, and ten seconds for 100 steps."""

    def make(optimizer, evaluations, extra=(), **settings):
        returns = settings.get("returns", (0.0, 10.0))
        costs = [
            (100 * k, {"optim/evaluations_total": 100.0 * k * evaluations, "time/env": 10.0})
            for k in range(1, len(returns))
        ]
        return load_run(make_run(optimizer, rows=[*costs, *extra], **settings))

    return make


def test_a_series_is_placed_by_what_its_run_had_spent(load):
    run = load("sam", 2, returns=(0, 1, 2))
    returns = run.series("eval/return_mean")

    assert scaled(run, returns, "frames").steps.tolist() == [0.0, 200.0, 400.0]
    assert scaled(run, returns, "evaluations").steps.tolist() == [0.0, 200.0, 400.0]
    np.testing.assert_allclose(scaled(run, returns, "hours").steps * 3600.0, [0.0, 10.0, 20.0])


def test_before_learning_begins_a_run_has_made_no_evaluations(make_run):
    """The log leaves the count out as long as there are no updates; they begin after step 200."""
    log = [(100, {"time/env": 1.0}), (200, {"time/env": 1.0})]
    log += [(k, {"time/env": 1.0, "optim/evaluations_total": k - 100.0}) for k in (300, 400)]
    run = load_run(make_run(returns=(0, 1, 2, 3, 4), rows=log))

    placed = scaled(run, run.series("eval/return_mean"), "evaluations")

    assert placed.steps.tolist() == [0.0, 0.0, 0.0, 200.0, 300.0]


def test_equal_compute_gives_the_cheaper_method_its_later_return(load):
    """Adam has 200 evaluations after 200 steps, SAM after 100: that is where both are read."""
    adam = [load("adam", 1, seed=s, returns=(0, 10 + s, 30 + s)) for s in range(2)]
    sam = [load("sam", 2, seed=s, returns=(0, 20 + s, 50 + s)) for s in range(2)]

    by_steps = compare_runs([*adam, *sam])
    by_compute = compare_runs([*adam, *sam], axis="evaluations")

    assert common_point([*adam, *sam], "evaluations") == 200.0
    steps, compute = by_steps.rows[1], by_compute.rows[1]
    assert steps.versus is not None
    assert steps.versus.difference.point == 20.0
    assert steps.versus_compute is not None
    assert steps.versus_compute.difference.point == -10.0
    assert compute.versus is not None
    assert compute.versus.difference.point == -10.0
    assert compute.cells["return_at_common_point"].by_seed == {0: 20.0, 1: 21.0}
    assert "equal compute" in to_markdown(by_steps.rows)
    assert "difference_compute" in to_csv(by_steps.rows)


@pytest.mark.parametrize("axis", ["steps", "evaluations"])
def test_equal_curves_are_equal_wherever_they_were_evaluated(load, axis):
    """The return is the number of evaluations made; the first comparison ends at 500 of them.

    SAM was evaluated after 400 and 600, Adam after 500 and, in its last tenth, after 475.
    """
    dense = [(475, {"eval/return_mean": 475.0})]
    adam = load("adam", 1, returns=tuple(100.0 * k for k in range(6)))
    sam = load("sam", 2, returns=tuple(200.0 * k for k in range(6)))
    often = load("adamw", 1, returns=tuple(100.0 * k for k in range(6)), extra=dense)

    for first in (adam, often):
        row = compare_runs([first, sam], axis=axis, baseline=first.names["optimizer"]).rows[1]
        assert row.versus_compute is not None
        assert row.versus_compute.difference.point == pytest.approx(0.0, abs=1e-12)

    rows = compare_runs([adam, often, sam], axis="evaluations").rows
    assert rows[0].match.point == 500.0
    returns = [row.cells["return_at_common_point"].by_seed[0] for row in rows]
    areas = [row.cells["area_under_curve"].by_seed[0] for row in rows]
    np.testing.assert_allclose(returns, 487.5, rtol=1e-12)
    np.testing.assert_allclose(areas, 250.0, rtol=1e-12)


def test_scores_over_tasks_are_matched_as_returns_are(load):
    """At 200 evaluations SAM has made 100 steps and Adam 200; both are then at 0.3."""
    tasks = ("dog-run", "dog-trot")
    runs = [load("adam", 1, task=task, returns=(0, 100, 300)) for task in tasks]
    runs += [load("sam", 2, task=task, returns=(0, 300, 900)) for task in tasks]

    by_steps = compare_runs(runs).aggregate
    by_compute = compare_runs(runs, axis="evaluations").aggregate

    assert {label: found.point for label, found in by_steps.items()} == {"adam": 0.3, "sam": 0.9}
    assert {label: found.point for label, found in by_compute.items()} == {"adam": 0.3, "sam": 0.3}


@pytest.mark.parametrize("statistic", ["mean", "iqm", "median"])
def test_the_difference_is_a_mean_and_says_so(load, statistic):
    adam = [load("adam", 1, seed=seed, returns=(0, 10)) for seed in range(3)]
    sam = [load("sam", 1, seed=seed, returns=(0, 10 + gain)) for seed, gain in enumerate((0, 0, 9))]

    found = compare_runs([*adam, *sam], statistic=statistic)

    assert found.rows[1].versus is not None
    assert found.rows[1].versus.difference.point == 3.0
    assert "| mean difference to baseline (pairs) |" in to_markdown(found.rows)


def test_methods_that_cost_the_same_have_no_columns_of_equal_compute(load):
    found = compare_runs([load("adam", 1), load("adamw", 1)])

    assert "equal compute" not in to_markdown(found.rows)


def test_returns_are_drawn_against_both_costs(load):
    charts = compare_runs([load("adam", 1), load("sam", 2)]).charts

    assert [chart.axis for chart in charts["compute"]] == ["evaluations", "hours"]
    assert [chart.axis for chart in charts["return"]] == ["steps"]


def test_a_run_without_costs_is_left_out_of_them_alone(make_run, load):
    charts = compare_runs([load("adam", 1), load_run(make_run("sam"))]).charts

    evaluations = next(c for c in charts["compute"] if c.axis == "evaluations")
    assert [curve.label for curve in evaluations.curves] == ["adam"]
    assert [curve.label for curve in charts["return"][0].curves] == ["adam", "sam"]


def test_settings_asked_for_alone_tell_groups_apart(load):
    runs = [
        load("sam", 2, seed=seed, settings={"rho": rho}, agent={"latent_dim": size})
        for seed in range(2)
        for rho in (0.01, 0.1)
        for size in (128, 512)
    ]

    groups, _ = group_runs(runs, by=["optimizer.rho"])

    assert [group.label for group in groups] == ["rho=0.01", "rho=0.1"]
    assert [len(group.runs) for group in groups] == [4, 4]
    assert len(group_runs(runs)[0]) == 4


def test_runs_of_one_seed_are_averaged_before_they_are_compared(load):
    sizes = [load("sam", 2, agent={"latent_dim": n}, returns=(0, n)) for n in (100, 300)]

    found = compare_runs([*sizes, load("adam", 1)], by=["optimizer"])

    cells = {row.group.label: row.cells["final_return"].by_seed for row in found.rows}
    assert cells == {"adam": {0: 10.0}, "sam": {0: 200.0}}


def test_a_seed_with_several_runs_is_counted_once(load):
    """Two sizes of two seeds: the numbers are of two seeds, and no seed lacks one."""
    runs = [
        load("sam", 2, seed=seed, agent={"latent_dim": size})
        for seed in range(2)
        for size in (128, 512)
    ]

    found = compare_runs(
        [*runs, *(load("adam", 1, seed=seed) for seed in range(2))], by=["optimizer"]
    )

    page = render_page(found, title="Two tables")
    assert "of 4 seeds" not in page
    assert page.count("<td>walker-walk</td><td>2</td>") == 4
    assert "| walker-walk | sam | 2 |" in to_markdown(found.rows)
    assert {row["seeds"] for row in csv.DictReader(io.StringIO(to_csv(found.rows)))} == {"0 1"}
    assert not any("same seeds" in note for note in found.notes)


def test_the_speed_of_a_run_is_its_steps_over_its_seconds(make_run):
    """100 random steps in a second, then 200 that learn in 99: three a second, not 51."""
    rows = [(100, {"time/steps_per_second": 100.0}), (300, {"time/steps_per_second": 200 / 99})]

    found = compare_runs([load_run(make_run(rows=rows))])

    assert found.rows[0].cells["steps_per_second"].by_seed == {0: pytest.approx(3.0)}


def test_a_row_that_a_resume_wrote_before_its_first_step_has_no_speed(make_run):
    rows = [(100, {"time/steps_per_second": 100.0}), (200, {"time/steps_per_second": 50.0})]
    rows += [(200, {"time/steps_per_second": 0.0}), (300, {"time/steps_per_second": 2.0})]

    found = compare_runs([load_run(make_run(rows=rows))])

    # 100 steps in one second and 100 in fifty; those up to 200 are not counted.
    assert found.rows[0].cells["steps_per_second"].by_seed == {0: pytest.approx(200 / 51)}


def test_a_setting_that_no_run_has_is_named(load):
    with pytest.raises(UserError, match=r"did you mean 'optimizer\.rho'"):
        group_runs([load("sam", 2, settings={"rho": 0.1})], by=["optimizer.rhoo"])


def test_scores_are_normalised_by_what_is_known_of_the_task(load):
    measured = {"eval/random_return_mean": 10.0}
    runs = [
        load("sam", 2, task="dog-run", returns=(0, 500)),
        load("sam", 2, task="some-game", returns=(0, 5), metrics=measured),
    ]

    scored, scales = with_normalised_scores(runs)

    assert scored[0].series("eval/normalised_score").values.tolist() == [0.0, 0.5]
    assert scales == {"dog-run": "return / 1000", "some-game": "return / 1000"}


def test_tasks_of_one_name_in_two_environments_are_two(load):
    """A run of MinAtar's breakout is no seed of Atari's, nor a measure of its random player."""
    runs = [
        load(
            "adam",
            1,
            seed=seed,
            metrics={"eval/random_return_mean": random},
            returns=(0, best),
            names={"agent": "storm", "env": env, "task": "breakout", "optimizer": "adam"},
        )
        for seed, env, random, best in ((0, "atari", 1.7, 30.5), (1, "minatar", 0.5, 9.0))
    ]

    found = compare_runs(runs, references=["human"])

    assert [row.group.task for row in found.rows] == ["atari/breakout", "minatar/breakout"]
    assert [row.match.point for row in found.rows] == [100.0, 100.0]
    assert [row.cells["final_return"].by_seed for row in found.rows] == [{0: 30.5}, {1: 9.0}]
    assert set(found.scales) == {"atari/breakout", "minatar/breakout"}
    assert {score.env for score in found.references} == {"atari"}
    assert [row.group.task for row in compare_runs(runs[1:]).rows] == ["breakout"]


def test_an_expert_that_has_no_score_on_a_task_gives_none(load):
    run = load("sam", 2, task="some-game", metrics={"eval/normalised_score": 0.5})

    scored, scales = with_normalised_scores([run], expert="tdmpc2")

    assert len(scored[0].series("eval/normalised_score").steps) == 0
    assert set(scales) == {"some-game"}
