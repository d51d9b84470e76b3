"""A run and a study that were written before names changed: resumed, evaluated and probed.

Both were stopped by Ctrl-C, the run at step 60 of 100. The expected rows are those of the code that
wrote them, on a CPU that may round differently from this one.
"""

import importlib
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from mbrl_flat.cli import main as cli
from mbrl_flat.runs.renamed import current_name, with_current_names
from mbrl_flat.training.checkpoint import load_safely

FIXTURES = Path(__file__).parents[2] / "fixtures"
TARGETS = (FIXTURES / "old_targets.txt").read_text().split()
QUIET = ["progress=false", "threads=1"]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def measured(row, *groups):
    return {k: v for k, v in row.items() if k.startswith(groups) and not k.startswith("time/")}


def assert_close(found, expected):
    assert found.keys() >= expected.keys()
    for key, value in expected.items():
        # Curvature moves more with the rounding of the operators than losses do.
        share = 0.2 if key.startswith("probe/sharpness/") else 0.05
        assert math.isclose(found[key], value, rel_tol=share, abs_tol=1e-2), key


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(FIXTURES / "run_of_old_names", tmp_path / "run"))


def command(main, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["mbrl-flat", *map(str, words)])
    main()


@pytest.mark.parametrize("name", TARGETS)
def test_every_name_that_a_configuration_ever_built_still_names_something(name):
    module, _, attribute = current_name(name).rpartition(".")

    assert callable(getattr(importlib.import_module(module), attribute))


def test_paths_are_translated_at_every_depth_and_other_text_is_not():
    tree = {"a": [{"_target_": "envs.dummy.make", "note": "envs", "size": 3}], "only": ["agents-1"]}

    assert with_current_names(tree) == {
        "a": [{"_target_": "mbrl_flat.envs.dummy.make", "note": "envs", "size": 3}],
        "only": ["agents-1"],
    }


def test_a_resumed_old_run_ends_with_the_rows_of_the_code_that_began_it(run, monkeypatch):
    command(cli.train, monkeypatch, f"resume={run}", *QUIET)

    expected = rows(FIXTURES / "run_of_old_names_resumed_metrics.jsonl")
    found = rows(run / "metrics.jsonl")
    assert [(row["step"], row["frame"]) for row in found] == [
        (row["step"], row["frame"]) for row in expected
    ]
    for one, other in zip(found, expected, strict=True):
        groups = ("train/", "optim/", "eval/", "probe/sharpness/", "episode/")
        assert_close(measured(one, *groups), measured(other, *groups))


def test_an_old_run_is_evaluated_as_by_the_code_that_wrote_it(run, monkeypatch):
    command(cli.evaluate, monkeypatch, f"run={run}", "episodes=2", "device=cpu", "threads=1")

    (found,) = rows(run / "evaluations.jsonl")
    (expected,) = rows(FIXTURES / "run_of_old_names_evaluated.jsonl")
    assert_close(measured(found, "eval/"), measured(expected, "eval/"))


@pytest.mark.parametrize("number", [0, 1])
def test_an_old_run_is_probed_as_by_the_code_that_wrote_it(run, monkeypatch, number):
    expected = rows(FIXTURES / "run_of_old_names_probed.jsonl")[number]
    words = [f"probe={expected['probe']}", "episodes=2", "device=cpu", "threads=1"]

    command(cli.probe, monkeypatch, f"run={run}", *words)

    (found,) = rows(run / "probes.jsonl")
    assert_close(measured(found, "probe/sharpness/"), measured(expected, "probe/sharpness/"))
    assert found.keys() >= {key for key in expected if not key.endswith(("_low", "_high"))}


def test_a_resumed_old_study_computes_what_was_missing(tmp_path, monkeypatch):
    folder = shutil.copytree(FIXTURES / "study_of_old_names", tmp_path / "study")

    command(cli.supervised, monkeypatch, f"resume={folder}", "progress=false")

    expected = rows(FIXTURES / "study_of_old_names_resumed_rows.jsonl")
    found = rows(Path(folder) / "rows.jsonl")
    assert [row["cell"] for row in found] == [row["cell"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        numbers = {k: v for k, v in other.items() if isinstance(v, float) and k != "cpu_seconds"}
        assert_close(one, {k: v for k, v in numbers.items() if "second" not in k})


def test_settings_that_change_on_resume_are_used_and_kept(run, monkeypatch):
    words = ["steps=62", "model_lr=1e-4", "on_nonfinite=skip"]

    command(cli.train, monkeypatch, f"resume={run}", *words, *QUIET)
    command(cli.train, monkeypatch, f"resume={run}", *QUIET)  # finished

    saved = load_safely(run / "checkpoints" / "latest.pt")
    rates = {group["lr"] for group in saved["agent"]["optimizer"]["base"]["param_groups"]}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert sorted(rates) == pytest.approx([0.3e-4, 1e-4])
    assert saved["step"] == config["steps"] == 62
    assert config["on_nonfinite"] == "skip"


def test_a_checkpoint_of_a_run_is_evaluated_as_a_run(run, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(cli.evaluate, monkeypatch, f"checkpoint={run}/checkpoints/latest.pt", "env=dummy")

    assert f"evaluate it with run={run} checkpoint=latest" in capsys.readouterr().err
