"""Small versions of the label-noise studies, from the command to the verdicts."""

import csv
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.errors import install_command
from mbrl_flat.studies.experiments import task


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a study with ``preset=ci``; give its rows and claims as dictionaries."""
    monkeypatch.chdir(tmp_path)

    def command(experiment: str, *arguments: str):
        GlobalHydra.instance().clear()
        argv = ["mbrl-flat-supervised", f"experiment={experiment}", "preset=ci", "run_dir=here"]
        monkeypatch.setattr("sys.argv", [*argv, *arguments])
        cli.supervised()
        return [
            list(csv.DictReader((tmp_path / "here" / name).read_text().splitlines()))
            for name in ("results.csv", "claims.csv")
        ]

    return command


def mean(rows, metric, **settings):
    values = [float(r[metric]) for r in rows if all(r[k] == v for k, v in settings.items())]
    assert values, settings
    return sum(values) / len(values)


@pytest.mark.slow
def test_every_method_but_the_random_direction_resists_wrong_labels(run):
    rows, claims = run("label_noise")

    sgd = mean(rows, "test_accuracy", method="base")
    assert mean(rows, "train_accuracy", method="base") > 97.0
    for method in ("sam", "sam_on", "msam", "vasso_0.2", "friendly_sam"):
        assert mean(rows, "test_accuracy", method=method) > sgd + 10.0, method
    assert abs(mean(rows, "test_accuracy", method="random_direction") - sgd) < 5.0
    assert {claim["seeds"] for claim in claims} == {"2"}


@pytest.mark.slow
def test_momentum_sam_gains_by_its_sign_and_direction(run):
    rows, claims = run("momentum_sam")

    ours = mean(rows, "test_accuracy", method="msam", evaluation="")
    assert ours > mean(rows, "test_accuracy", method="base") + 10.0
    assert ours > mean(rows, "test_accuracy", method="random_direction") + 10.0
    assert ours > mean(rows, "test_accuracy", method="msam_flipped") + 10.0
    sam_cost, msam_cost = (mean(rows, f"cost_{m}", cost="mlp") for m in ("sam", "msam"))
    assert msam_cost < sam_cost
    assert [c["claim"] for c in claims] == ["C1", "C2", "C2", "C3", "C4", "C4", "C5", "C6", "C6"]


@pytest.mark.slow
def test_the_averaged_adversary_is_steadier(run):
    rows, claims = run("vasso")

    assert mean(rows, "cosine_0.2", adversaries="mlp") > 0.7
    assert abs(mean(rows, "cosine_1", adversaries="mlp")) < 0.2
    assert mean(rows, "excess_1", adversaries="mlp") == 0.0
    assert claims[0]["verdict"] == "supported"


@pytest.mark.slow
def test_displacing_normalisation_layers_alone_gives_most_of_the_gain(run):
    rows, _ = run("sam_on")

    ours = mean(rows, "test_accuracy", method="sam_on")
    assert ours > mean(rows, "test_accuracy", method="base") + 10.0
    assert ours > mean(rows, "test_accuracy", method="random_mask") + 3.0


def test_a_study_is_started_once_and_gone_on_with(run, capsys, monkeypatch, tmp_path):
    tiny = ["study.task.epochs=1", "study.task.train_size=128", "study.tries=1", "study.seeds=1"]
    rows, claims = run("label_noise", *tiny)
    before = (tmp_path / "here" / "rows.jsonl").read_bytes()

    GlobalHydra.instance().clear()
    monkeypatch.setattr("sys.argv", ["mbrl-flat-supervised", "resume=here"])
    cli.supervised()

    assert (tmp_path / "here" / "rows.jsonl").read_bytes() == before
    assert len(rows) == 8
    assert claims[0]["claim"] == "L1"
    assert "sam gains more than 5 points" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert {"config.yaml", "environment.json", "study.json", "claims.md", "plots"} <= names


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["experiment=label_nose"], ["'label_nose'", "'label_noise'"]),
        (["experiment=label_noise", "preset=cpu"], ["'cpu'", "ci"]),
        (["experiment=label_noise", "study.sed=3"], ["'study.sed'", "'study.seeds'"]),
        (["experiment=label_noise", "study.tries=9"], ["tries=9"]),
        (["experiment=label_noise", "study.task.network=mpl"], ["'mpl'", "'mlp'"]),
        (["experiment=first_run"], ["mbrl-flat-train"]),
        ([], ["experiment"]),
    ],
)
def test_a_wrong_word_gets_one_sentence(monkeypatch, tmp_path, capsys, arguments, parts):
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    monkeypatch.setattr("sys.argv", ["mbrl-flat-supervised", *arguments])

    with pytest.raises(SystemExit) as stop:
        cli.supervised()

    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert message.count("\n") == 1, message
    assert all(part in message for part in parts), message
    assert not (tmp_path / "runs").exists()


def test_a_forced_setting_goes_before_the_preset(run):
    tiny = ["study.task.epochs=1", "study.task.train_size=128", "study.tries=1"]
    rows, _ = run("label_noise", *tiny, "++study.seeds=1")
    assert {row["seed"] for row in rows} == {"0"}


def test_a_setting_that_is_taken_out_stays_out_whatever_the_preset_says(run):
    tiny = ["study.task.epochs=1", "study.task.train_size=128", "study.tries=1", "study.seeds=1"]
    left = ["~study.radii.asam", "~study.radii.sam_on", "~study.radii.msam", "~study.radii.sam"]
    rows, _ = run("label_noise", *tiny, *left)
    methods = {row["method"] for row in rows}
    assert {"base", "random_direction"} <= methods
    assert not methods & {"asam", "sam_on", "msam", "sam"}


def test_a_study_without_its_data_leaves_no_folder(run, capsys, monkeypatch, tmp_path):
    task._digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)

    with pytest.raises(SystemExit) as stop:
        run("label_noise")

    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert install_command("supervised") in message
    assert message.count("\n") == 1, message
    assert not (tmp_path / "here").exists()
