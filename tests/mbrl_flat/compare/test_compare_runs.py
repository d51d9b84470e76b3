import json
import time

import numpy as np
import pytest

from mbrl_flat.compare.runs import EMPTY, Series, collect_series, find_runs, load_run
from mbrl_flat.errors import UserError
from mbrl_flat.logging.jsonl import read_metrics
from mbrl_flat.logging.metric_columns import columns_of


def test_runs_are_found_by_folder_by_parent_and_by_glob(make_run, tmp_path):
    first, second = make_run("adam"), make_run("sam")

    assert find_runs([str(first)]) == [first]
    assert find_runs([str(tmp_path / "runs")]) == [first, second]
    assert find_runs([str(tmp_path / "runs" / "*sam*")]) == [second]


def test_a_run_that_is_named_twice_is_found_once(make_run, tmp_path):
    folder = make_run()

    assert find_runs([str(folder), str(tmp_path / "runs" / "*")]) == [folder]


@pytest.mark.parametrize("pattern", ["runs/nothing*", "no-such-folder", "."])
def test_a_pattern_without_runs_is_named(pattern, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match="no run at"):
        find_runs([pattern])


def test_a_run_has_its_names_flat_settings_and_series(make_run):
    run = load_run(make_run("sam", seed=3, returns=(1.0, 2.0), settings={"rho": 0.05}))

    assert (run.names["optimizer"], run.names["task"], run.seed) == ("sam", "walker-walk", 3)
    assert run.config["optimizer.rho"] == 0.05
    assert run.series("eval/return_mean").values.tolist() == [1.0, 2.0]
    assert run.action_repeat == 2.0
    assert run.last_evaluation == 100.0


def test_a_run_without_metrics_is_a_run(make_run):
    folder = make_run()
    (folder / "metrics.jsonl").unlink()

    run = load_run(folder)

    assert np.isnan([run.last_evaluation, run.action_repeat, run.wall_seconds]).all()
    assert len(run.series("eval/return_mean").steps) == 0


def test_wall_time_is_the_time_in_the_loop_and_not_the_pause_before_a_resume(make_run):
    rows = [
        (100, {"time/env": 1.0, "time/act": 2.0, "time/steps_per_second": 10.0}),
        (100_000, {"time/env": 3.0, "time/update": 4.0}),
    ]

    assert load_run(make_run(rows=rows)).wall_seconds == 10.0


def test_hours_are_in_the_order_of_the_steps_and_count_a_repeated_one_once(make_run):
    """The line of step 200 was lost with what followed the checkpoint, and written again."""
    rows = [(step, {"time/env": spent}) for step, spent in ((200, 9.0), (100, 1.0), (200, 3.0))]

    hours = load_run(make_run(returns=(), rows=rows)).series("time/hours")

    assert hours.steps.tolist() == [100.0, 200.0]
    np.testing.assert_allclose(hours.values * 3600.0, [1.0, 4.0])


def test_times_stand_in_for_hours_that_were_not_logged(make_run):
    rows = [(step, {"time": seconds}) for step, seconds in ((5, 50.0), (9, 60.0), (9, 80.0))]

    hours = load_run(make_run(returns=(), rows=rows)).series("time/hours")

    assert hours.steps.tolist() == [5.0, 9.0]
    assert (hours.values * 3600.0).tolist() == pytest.approx([0.0, 30.0])


def test_a_step_that_a_resume_repeated_counts_once():
    rows = [
        {"step": step, "frame": step, "time": 0.0, "eval/a": value}
        for step, value in ((5, 1.0), (9, 2.0), (5, 7.0))
    ]

    series = collect_series(columns_of(rows, ("eval/",)))["eval/a"]

    assert series.steps.tolist() == [5.0, 9.0]
    assert series.values.tolist() == [7.0, 2.0]


def test_a_part_of_a_series_is_cut_by_interpolation():
    line = Series(np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 2.0]))

    steps, values = line.between(5.0, 12.0)

    np.testing.assert_allclose(steps, [5.0, 10.0, 12.0])
    np.testing.assert_allclose(values, [0.5, 1.0, 1.2])
    assert line.between(2.0, 4.0).values.tolist() == pytest.approx([0.2, 0.4])
    assert [len(part) for part in line.until(99.0)] == [3, 3]
    assert [len(part) for part in line.between(30.0, 40.0)] == [0, 0]
    assert [len(part) for part in EMPTY.between(0.0, 1.0)] == [0, 0]


def test_versions_and_device_are_read_where_they_were_written(make_run):
    folder = make_run()
    text = json.dumps({"device_name": "H200", "packages": {"torch": "2.13.0"}})
    (folder / "environment.json").write_text(text)

    assert load_run(folder).environment == {"device_name": "H200", "packages.torch": "2.13.0"}


def test_a_row_without_its_place_is_named(make_run):
    folder = make_run()
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 300, "eval/return_mean": 1.0}\n')

    with pytest.raises(UserError, match=r"Line 3 of .*metrics.jsonl: has no frame and no time; "):
        load_run(folder)


@pytest.mark.parametrize("text", ["[1, 2]", "names: {agent: a}", "a: [", "", "names: 3"])
def test_a_configuration_of_something_else_is_refused(make_run, text):
    folder = make_run()
    (folder / "config.yaml").write_text(text)

    with pytest.raises(UserError, match=r"config\.yaml"):
        load_run(folder)


def test_runs_behind_links_are_found_and_what_lies_within_a_run_is_not(make_run, tmp_path):
    real = make_run()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked").symlink_to(real)
    (elsewhere / "loop").symlink_to(elsewhere)
    inner = real / "wandb" / "run-1" / "files"
    inner.mkdir(parents=True)
    (inner / "config.yaml").write_text("wandb_version: 1\n", encoding="utf-8")

    assert find_runs([str(elsewhere)]) == [elsewhere / "linked"]
    assert find_runs([str(elsewhere), str(real.parent)]) == [elsewhere / "linked"]


def test_links_are_not_followed_out_of_the_tree_that_was_given(make_run, tmp_path):
    real = make_run()
    (tmp_path / "given" / "inner").mkdir(parents=True)
    (tmp_path / "given" / "inner" / "root").symlink_to("/")
    (tmp_path / "given" / "runs").symlink_to(real.parent)

    for pattern in (tmp_path / "given", tmp_path / "given" / "**", "/proc/self"):
        with pytest.raises(UserError, match="There is no run at"):
            find_runs([str(pattern)])
    assert find_runs([str(tmp_path / "given" / "runs")]) == [tmp_path / "given/runs" / real.name]
    assert find_runs([str(tmp_path / "*" / "*" / real.name)]) == [
        tmp_path / "given/runs" / real.name
    ]


def test_the_search_for_runs_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("mbrl_flat.compare.runs._MAX_FOLDERS", 10)
    for number in range(10):
        (tmp_path / "many" / str(number)).mkdir(parents=True)

    with pytest.raises(UserError, match=r"More than 10 folders lie below .*many; give the folders"):
        find_runs([str(tmp_path / "many")])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("", "is empty"), (" ", "is empty"), ("**a", "entire path component"), ("x" * 9000, "long")],
)
def test_a_path_that_cannot_be_searched_is_refused(pattern, said):
    with pytest.raises(UserError, match=said):
        find_runs([pattern])


@pytest.mark.parametrize(
    ("seed", "row", "message"),
    [
        ("null", "", "has the seed None, which is no whole number"),
        ("a", "", "has the seed 'a', which is no whole number"),
        ("0", '{"step": 300, "frame": 1, "time": 1, "eval/return_mean": "x"}\n', "is no number"),
        ("0", '{"step": "x", "frame": 1, "time": 1}\n', "is no number"),
    ],
)
def test_what_is_no_number_is_told(make_run, seed, row, message):
    folder = make_run()
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert "seed: 0\n" in text
    config.write_text(text.replace("seed: 0\n", f"seed: {seed}\n"), encoding="utf-8")
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(row)

    with pytest.raises(UserError, match=message):
        load_run(folder)


def test_a_configuration_in_another_encoding_is_refused(make_run):
    folder = make_run()
    (folder / "config.yaml").write_bytes("name: é\n".encode("latin-1"))

    with pytest.raises(UserError, match="not UTF-8 text"):
        load_run(folder)


def test_a_name_that_no_file_can_have_is_a_clear_error():
    with pytest.raises(UserError, match="Cannot look for runs at"):
        find_runs(["x" * 300])


@pytest.mark.parametrize(
    "value",
    ["true", '"1.5"', "[1.0]", "{}", "1" + "0" * 400, "[" * 3000 + "]" * 3000, "nonsense"],
    ids=["flag", "text", "list", "object", "long integer", "brackets", "no JSON"],
)
def test_a_metrics_file_with_anything_but_numbers_names_the_line(make_run, value):
    folder = make_run()
    file = folder / "metrics.jsonl"
    row = '{"step": 300, "frame": 600, "time": 1.0, "eval/return_mean": %s}\n'
    file.write_text(file.read_text() + row % value + row % "2.0")

    with pytest.raises(UserError, match="Line 3 of "):
        load_run(folder)
    with pytest.raises(UserError, match="Line 3 of "):
        read_metrics(file)


def test_nan_and_null_are_missing_values(make_run):
    folder = make_run()
    row = '{"step": %d, "frame": 600, "time": 1.0, "eval/return_mean": %s}\n'
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(row % (300, "NaN") + row % (400, "null") + row % (500, "7.0"))

    assert load_run(folder).series("eval/return_mean").steps.tolist() == [0.0, 100.0, 500.0]


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", BOMB),
        ("config.yaml", "a: " + "[" * 3000 + "]" * 3000),
        ("config.yaml", "seed: " + "9" * 400),
        ("config.yaml", "seed: true"),
        ("environment.json", '{"a": ' * 100_000),
        ("environment.json", '{"cores": ' + "9" * 400 + "}"),
        ("environment.json", "[1]"),
        ("metrics.jsonl", '{"step": ' * 100_000 + "\n"),
        ("metrics.jsonl", '{"step": 1, "frame": 1, "time": 1, "eval/return_mean": [[1]]}\n'),
        ("metrics.jsonl", '{"step": 1, "frame": 1, "time": 1, "eval/x": ' + "9" * 400 + "}\n"),
        ("metrics.jsonl", '{"step": ' + "9" * 5000 + ', "frame": 1, "time": 1}\n'),
    ],
)
def test_hostile_files_are_refused_at_once(make_run, name, text):
    folder = make_run()
    before = (
        (folder / name).read_text() if name == "config.yaml" and text.startswith("seed") else ""
    )
    (folder / name).write_text(before + text)
    start = time.perf_counter()
    with pytest.raises(UserError, match=name) as caught:
        load_run(folder)
    assert time.perf_counter() - start < 2.0
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
