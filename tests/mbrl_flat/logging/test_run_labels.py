"""Weights & Biases groups runs as the comparison does."""

import copy

import pytest
import yaml

from mbrl_flat.compare.groups import group_runs
from mbrl_flat.compare.runs import load_run
from mbrl_flat.logging.labels import run_labels, run_settings
from mbrl_flat.runtime.settings import flatten

BASE = {
    "names": {"agent": "tdmpc2", "env": "dmc", "task": "walker-walk", "optimizer": "sam"},
    "seed": 0,
    "steps": 1000,
    "preset": "default",
    "optimizer": {"lr": 3e-4, "rho": 0.01, "base": {"_target_": "adam"}},
    "agent": {"latent_dim": 512},
    "heldout_fraction": 0.05,
}


def changed(**settings):
    config = copy.deepcopy(BASE)
    for key, value in settings.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


CONFIGS = {
    "first": changed(),
    "other seed": changed(seed=1),
    "other length": changed(seed=2, steps=99),
    "other radius": changed(optimizer__rho=0.1),
    "other radius, other seed": changed(optimizer__rho=0.1, seed=1),
    "other size": changed(agent__latent_dim=128),
    "other task": changed(names__task="dog-run"),
    "adam": changed(names__optimizer="adam", optimizer={"lr": 3e-4}),
    "nothing held out": changed(heldout_fraction=0.0),
    "a setting more": changed(optimizer__schedule="cosine"),
}


def test_two_runs_share_a_group_exactly_when_the_comparison_puts_them_together(tmp_path):
    runs = []
    for name, config in CONFIGS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        runs.append(load_run(folder))

    theirs = {}
    for name, config in CONFIGS.items():
        theirs.setdefault(run_labels(config)["group"], set()).add(name)
    groups, _ = group_runs(runs)
    ours = [{run.folder.name for run in group.runs} for group in groups]

    assert sorted(map(sorted, theirs.values())) == sorted(map(sorted, ours))


def test_a_group_can_be_read():
    labels = run_labels(BASE)

    assert labels["group"].startswith("walker-walk tdmpc2 sam rho=0.01 ")
    assert labels["job_type"] == "train"
    assert labels["tags"] == ["walker-walk", "tdmpc2", "sam", "default"]
    assert len(run_labels(changed(names__task="t" * 300))["group"]) <= 128


def test_long_names_do_not_push_the_difference_out_of_the_group():
    long = {"names__task": "t" * 300}

    configs = [changed(**long), changed(**long, optimizer__rho=0.5)]
    groups = [run_labels(config)["group"] for config in configs]

    assert groups[0][:120] == groups[1][:120]
    assert len(set(groups)) == 2


def test_a_long_task_makes_no_tag_that_the_service_refuses():
    tags = run_labels(changed(names__task="t" * 300))["tags"]

    assert max(map(len, tags)) == 64


def test_charts_find_the_optimizer_at_the_top_of_the_settings():
    settings = run_settings(BASE)

    assert settings["optimizer_name"] == "sam"
    assert settings["agent_name"] == "tdmpc2"
    assert settings["task"] == "walker-walk"
    assert settings["optimizer"] == BASE["optimizer"]
    assert "variant_name" not in settings
    assert run_settings(changed(names__variant="adam_twice"))["variant_name"] == "adam_twice"


def test_charts_find_the_group_at_the_top_of_the_settings():
    """Two radii, or a control variant, are no seeds of one curve."""
    names = [run_settings(config)["group_name"] for config in CONFIGS.values()]

    assert names == [run_labels(config)["group"] for config in CONFIGS.values()]
    assert names[0] == names[1] == names[2], "seed and length"
    assert names[3] == names[4], "another radius, two seeds"
    assert len(set(names)) == len(CONFIGS) - 3, "everything else is a group of its own"


@pytest.mark.parametrize("empty", [{}, {"a": {}}])
def test_empty_settings_stay_settings(empty):
    assert dict(flatten(empty)) == empty
