from dataclasses import replace

import pytest

from mbrl_flat.compare.groups import comparability_notes, differing_settings, group_runs
from mbrl_flat.compare.runs import load_run


@pytest.fixture
def load(make_run):
    return lambda *args, **kwargs: load_run(make_run(*args, **kwargs))


def labels(runs):
    return [group.label for group in group_runs(runs)[0]]


def test_seeds_of_one_setting_are_one_group(load):
    groups, notes = group_runs([load("sam", seed=seed) for seed in (2, 0, 1)])

    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1, 2]]
    assert notes == []


def test_a_label_has_the_settings_that_differ_and_no_others(load):
    runs = [
        load("adam"),
        load("sam", settings={"rho": 0.1, "every": 1}),
        load("sam", settings={"rho": 0.02, "every": 1}),
    ]

    assert labels(runs) == ["adam", "sam rho=0.02", "sam rho=0.1"]


def test_another_size_of_the_agent_is_another_group_and_a_note(load):
    runs = [load("adam"), load("adam", agent={"latent_dim": 64})]

    groups, _ = group_runs(runs)

    assert [group.label for group in groups] == [
        "adam agent.latent_dim=64",
        "adam agent.latent_dim=512",
    ]
    assert any("agent.latent_dim differs (64, 512)" in note for note in comparability_notes(groups))


def test_a_setting_that_only_some_runs_have_makes_another_group(load):
    """A control variant is no further seed of the plain one."""
    plain = [load("sam", seed=seed, settings={"rho": 0.1}) for seed in range(2)]
    variant = load("sam", seed=2, settings={"rho": 0.1, "schedule": "cosine"})
    wide = load("sam", seed=3, settings={"rho": 0.1}, agent={"latent_dim": 512, "extra": 1})

    groups, _ = group_runs([*plain, variant, wide])

    assert {group.label: [run.seed for run in group.runs] for group in groups} == {
        "sam schedule=- agent.extra=-": [0, 1],
        "sam schedule=cosine agent.extra=-": [2],
        "sam schedule=- agent.extra=1": [3],
    }
    assert any("agent.extra differs (-, 1)" in note for note in comparability_notes(groups))


def test_a_setting_of_one_agent_is_not_absent_from_another(load):
    names = {"agent": "storm", "env": "dmc", "task": "walker-walk", "optimizer": "adam"}
    runs = [load("adam"), load("adam", names=names, agent={"heads": 8})]

    groups, _ = group_runs(runs)

    assert [group.label for group in groups] == ["storm adam", "tdmpc2 adam"]
    assert comparability_notes(groups) == []


@pytest.mark.parametrize(
    ("key", "values"),
    [("device", ("cpu", "cuda")), ("log_every", (10, 20)), ("run_dir", ("a", "b"))],
)
def test_where_and_how_often_a_run_was_measured_does_not_split_groups(load, key, values):
    runs = [load(seed=seed, **{key: value}) for seed, value in enumerate(values)]

    groups, _ = group_runs(runs)

    assert len(groups) == 1
    assert comparability_notes(groups) == []


def test_another_way_of_measuring_is_said(load):
    groups, _ = group_runs([load(seed=0, eval_episodes=1), load(seed=1, eval_episodes=10)])

    assert len(groups) == 1
    assert "eval_episodes differs (1, 10)" in comparability_notes(groups)[0]


def test_unequal_lengths_are_said_and_do_not_split_groups(load):
    groups, _ = group_runs([load(seed=0, returns=(0, 1)), load(seed=1, returns=(0, 1, 2))])

    assert len(groups) == 1
    assert "between 100 and 200 steps" in comparability_notes(groups)[0]


def test_a_run_that_was_not_evaluated_after_its_start_is_named(load):
    begun = load("sam", returns=(0,))

    groups, _ = group_runs([load("adam"), begun])

    (note,) = comparability_notes(groups)
    assert begun.folder.name in note


def test_unequal_action_repeats_are_said(load):
    other = load("sam", returns=(), rows=[(100, {"eval/return_mean": 1.0, "frame": 400})])

    groups, _ = group_runs([load("adam"), other])

    assert any("action repeats differ (2, 4)" in note for note in comparability_notes(groups))


def test_missing_seeds_are_said(load):
    groups, _ = group_runs([load("adam", seed=0), load("sam", seed=0), load("sam", seed=1)])

    assert any("same seeds" in note for note in comparability_notes(groups))


def test_of_two_runs_with_one_seed_the_longer_stays_and_the_other_is_named(load):
    short, long = load(returns=(0, 1)), load(returns=(0, 1, 2))

    groups, notes = group_runs([short, long])

    assert groups[0].runs == (long,)
    assert short.folder.name in notes[0]
    assert "as far or further" in notes[0]


def test_agents_are_in_the_label_only_where_there_are_several(load):
    names = {"agent": "dreamerv3", "env": "dmc", "task": "walker-walk", "optimizer": "adam"}

    assert labels([load("adam")]) == ["adam"]
    assert labels([load("adam"), load("adam", names=names)]) == ["dreamerv3 adam", "tdmpc2 adam"]


def test_settings_that_differ_are_listed_for_every_run(load):
    runs = [load("adam"), load("sam", settings={"rho": 0.05})]

    assert differing_settings(runs) == {"optimizer.rho": ["-", "0.05"]}


@pytest.mark.parametrize("key", ["seed", "parallel_envs"])
def test_what_a_user_groups_by_is_never_made_one(load, key):
    """Settings that do not make a method, and names, tell groups apart where they are asked to."""
    runs = [
        load(seed=seed, returns=(0, value), parallel_envs=number)
        for seed, value, number in ((1, 100.0, 1), (2, 200.0, 8))
    ]

    groups, notes = group_runs(runs, by=[key])

    assert [len(group.runs) for group in groups] == [1, 1]
    assert [group.label for group in groups] == (
        ["seed=1", "seed=2"] if key == "seed" else ["parallel_envs=1", "parallel_envs=8"]
    )
    assert notes == []


def test_two_runs_of_a_seed_in_two_arms_are_both_kept(load, tmp_path):
    runs = [load(seed=1, returns=(0, 100.0)), load(seed=1, returns=(0, 200.0), parallel_envs=8)]
    named = [
        replace(run, names={**run.names, "variant": variant})
        for run, variant in zip(runs, ("one", "eight"), strict=True)
    ]

    groups, notes = group_runs(named, by=["variant"])

    assert [group.label for group in groups] == ["eight", "one"]
    assert notes == []
