"""The workspace is built and can be read without a connection."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mbrl_flat.errors import MissingExtraError
from mbrl_flat.logging.labels import run_labels, run_settings

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "wandb_workspace.py"
SPEC = importlib.util.spec_from_file_location("wandb_workspace", SCRIPT)
WORKSPACE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(WORKSPACE)
GROUP_BY, SECTIONS = WORKSPACE.GROUP_BY, WORKSPACE.SECTIONS
build_workspace, describe = WORKSPACE.build_workspace, WORKSPACE.describe
INTERFACE = ("eval/", "probe/", "optim/", "time/")


@pytest.fixture(scope="module")
def sections():
    pytest.importorskip("wandb_workspaces")
    spec = json.loads(describe(build_workspace(entity="me", project="mbrl_flat")))["spec"]
    return {s["name"]: s["panels"] for s in spec["section"]["panelBankConfig"]["sections"]}


def test_there_is_a_section_for_everything_that_a_report_shows(sections):
    assert {"Returns", "Value error", "Sharpness", "Evaluations"} <= set(sections)
    drawn = {
        metric
        for panels in sections.values()
        for panel in panels
        for metric in panel["config"].get("metrics") or ()
    }
    assert {
        "eval/return_mean",
        "probe/value/rmse_normalised",
        "probe/sharpness/lambda_max",
        "optim/evaluations_total",
    } <= drawn
    assert all(metric.startswith(INTERFACE) for metric in drawn)


def test_every_curve_is_a_mean_over_the_seeds_of_one_setting_against_the_step(sections):
    names = {"names": {"agent": "a", "env": "e", "task": "t", "optimizer": "sam"}}
    assert run_settings(names)[GROUP_BY] == run_labels(names)["group"]
    curves = [panel for name in SECTIONS for panel in sections[name]]

    for panel in curves:
        config = panel["config"]
        assert config["groupBy"] == f"{GROUP_BY}.value"
        assert (config["groupAgg"], config["xAxis"]) == ("mean", "step")
        assert config["chartTitle"]
    assert len(curves) == sum(map(len, SECTIONS.values()))


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)

    with pytest.raises(MissingExtraError, match="dashboards"):
        build_workspace(entity="me", project="p")


def test_the_script_prints_it_and_sends_nothing():
    pytest.importorskip("wandb_workspaces")
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), "--print", "--project", "mine"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["project"] == "mine"


def test_the_script_asks_whose_project_it_is():
    answer = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False
    )

    assert answer.returncode == 2
    assert "--entity" in answer.stderr
