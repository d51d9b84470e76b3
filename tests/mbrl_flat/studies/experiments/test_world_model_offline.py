"""The study of world models learned without control: stages, claims, and all of it in small."""

import csv
import math

import pytest
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError
from mbrl_flat.studies.experiments.world_model_offline import (
    METHODS,
    VALIDATION_SEED,
    ModelSettings,
    WorldModelOffline,
)
from mbrl_flat.studies.experiments.world_model_report import (
    bootstrap,
    log_changes,
    offline_claims,
    percent,
)
from mbrl_flat.studies.framework import TrialRow, TrialRows
from mbrl_flat.studies.offline.recording import Recording

SUBJECT = ModelSettings(
    model="mbrl_flat.studies.offline.vector_transformer.VectorTransformer",
    settings={"size": 8, "num_layers": 1, "num_heads": 2, "context": 2, "batch_size": 4},
    lr=1e-3,
    radii={"sam": [0.1, 0.2]},
)


def study(tmp_path, **changes):
    recording = Recording(
        env="mbrl_flat.envs.dummy.make",
        task="point",
        episodes=6,
        length=24,
        tail=4,
        folder=str(tmp_path),
    )
    settings = {"recording": recording, "pool": 3, "validation": 1, "train": 2, "tries": 2}
    settings |= {"subjects": {"small": SUBJECT}, "models": ["small"], "seeds": 2}
    return WorldModelOffline(**{**settings, "evaluations": 8, "horizon": 3, **changes})


def row(**entries):
    return TrialRow(entries)


def test_radii_are_chosen_on_other_seeds_and_episodes_than_those_reported(tmp_path):
    ours = study(tmp_path)

    first = ours.cells(TrialRows())
    scores = {0.1: 0.5, 0.2: 0.4}
    rows = TrialRows([row(**cell, score=scores[cell["rho"]]) for cell in first])
    rest = ours.cells(rows)[len(first) :]

    assert {(c["part"], c["seed"] >= VALIDATION_SEED) for c in first} == {("validation", True)}
    assert {(c["part"], c["seed"] < VALIDATION_SEED) for c in rest} == {("test", True)}
    assert {c["rho"] for c in rest if c["method"] in ("sam", "random_direction")} == {0.2}
    assert {c["rho"] for c in rest if c["method"].startswith("adam")} == {0.0}
    assert [c["seed"] for c in rest] == sorted(c["seed"] for c in rest)


def test_a_radius_that_diverged_is_chosen_last(tmp_path):
    ours = study(tmp_path)
    first = ours.cells(TrialRows())
    rows = [
        row(**cell, **({"diverged_at_step": 3} if cell["rho"] == 0.2 else {"score": 9.0}))
        for cell in first
    ]

    assert ours.cells(TrialRows(rows))[-1]["rho"] == 0.1


def test_a_cell_follows_from_its_settings_and_counts_what_it_spends(tmp_path):
    ours = study(tmp_path)
    cells = {
        method: {"part": "test", "model": "small", "method": method, "rho": 0.1, "seed": 0}
        for method in ("adam", "adam_matched", "sam")
    }

    measured = {method: ours.measure(cell) for method, cell in cells.items()}

    assert ours.measure(cells["sam"]) == measured["sam"]
    spent = {m: (row["updates"], row["evaluations"]) for m, row in measured.items()}
    assert spent == {"adam": (4, 4), "adam_matched": (8, 8), "sam": (4, 8)}
    assert len(measured["sam"]["state_curve"]) == 4
    assert all(math.isfinite(measured["sam"][f"{p}_lambda_max"]) for p in ("train", "test"))


def test_seeds_learn_from_different_episodes_and_are_judged_on_the_same(tmp_path):
    ours = study(tmp_path)
    first, second = ours.split(0), ours.split(5)

    assert not first["train"].returns.equal(second["train"].returns)
    assert first["test"].returns.equal(second["test"].returns)
    assert {name: len(part) for name, part in first.items()} == {
        "train": 2,
        "validation": 1,
        "test": 2,
    }


def test_changes_are_differences_of_logarithms():
    changes = log_changes({0: 2.0, 1: 1.0, 2: 5.0}, {0: 1.0, 1: 1.0})

    assert changes == [math.log(2.0), 0.0]
    assert log_changes({0: -1.0}, {0: 1.0}) == []
    low, point, high = bootstrap(changes)
    assert (low, high) == (0.0, changes[0])
    assert point == changes[0] / 2.0
    assert math.isnan(bootstrap([]).point)


def test_a_change_in_percent_is_that_of_the_ratio():
    assert percent(math.log(2.0)) == pytest.approx(100.0)
    assert percent(math.log(0.1)) == pytest.approx(-90.0)


def test_a_method_that_is_better_on_every_seed_holds_and_no_rows_are_not_tested():
    rows = TrialRows(
        [
            row(part="test", model="m", method=method, seed=seed, state_error=value + 0.01 * seed)
            for method, value in (("sam", 0.5), ("adam_matched", 1.0), ("adam", 0.5))
            for seed in range(5)
        ]
    )

    verdicts = {c.statement: c.verdict for c in offline_claims(rows, "m")}

    assert verdicts["m: sam predicts observations better than Adam at equal evaluations"] == (
        "supported"
    )
    assert verdicts["m: sam predicts observations better than Adam at equal updates"] == (
        "contradicted"
    )
    assert {claim.verdict for claim in offline_claims(TrialRows(), "m")} == {"not tested"}


def test_a_correlation_that_rests_on_one_method_says_so():
    values = {"adam": 1, "sam": 2, "vasso": 3, "msam": 9}
    errors = {"adam": 3, "sam": 2, "vasso": 1, "msam": 9}
    rows = [
        row(
            part="test", model="m", method=method, seed=seed,
            train_lambda_max=float(values[method]), state_error=errors[method] + 0.01 * seed,
            reward_error=float(values[method]), value_error=float(seed),
        )
        for method in values
        for seed in range(5)
    ]  # fmt: skip

    notes = {c.statement: c.note for c in offline_claims(TrialRows(rows), "m")}

    assert "4 methods; " in notes["m: flatter methods have a lower state error"]
    assert "without msam -1 [-1, -1]" in notes["m: flatter methods have a lower state error"]
    assert notes["m: flatter methods have a lower reward error"] == "4 methods"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["smol"]}, "did you mean 'small'"),
        ({"train": 4}, "train must be at most pool=3, got 4"),
        ({"validation": 3}, "leave no episode of 6 for the report"),
        ({"evaluations": 3}, "evaluations must be at least 4"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        study(tmp_path, **changes)


def test_unknown_methods_and_empty_lists_of_radii_are_refused():
    for radii, message in (({"smm": [0.1]}, "'sam'"), ({"sam": []}, "sam has no radius to try")):
        with pytest.raises(UserError, match=message):
            ModelSettings(model="a.b", settings={}, lr=1e-3, radii=radii)


@pytest.mark.slow
@pytest.mark.sim
def test_the_small_study_of_the_dog_runs_from_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tables = []
    for folder, arguments in (("all", []), ("one", ["study.models=[transformer]"])):
        GlobalHydra.instance().clear()
        argv = ["mbrl-flat-supervised", "experiment=world_model_offline", "preset=ci"]
        monkeypatch.setattr("sys.argv", [*argv, f"run_dir={folder}", *arguments])
        cli.supervised()
        text = (tmp_path / folder / "results.csv").read_text()
        tables.append(list(csv.DictReader(text.splitlines())))

    whole, again = tables
    assert [row for row in whole if row["model"] == "transformer"] == again
    tests = [row for row in whole if row["part"] == "test"]
    assert {row["method"] for row in tests} == set(METHODS)
    for row in tests:
        assert int(row["evaluations"]) == (8 if row["method"] == "adam" else 16)
