"""``mbrl-flat-train -m`` with Hydra's own sweepers; the runs themselves are stand-ins."""

import csv
import json
import math
import signal
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.cli import main as cli
from mbrl_flat.compare.main import main as compare
from mbrl_flat.runtime.files import save_atomically
from mbrl_flat.sweeps import job as jobs

COMMON = ["-m", "env=dummy", "preset=debug", "threads=1", "run_dir=s"]


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """Run the command where every run ends at once with a return that depends on its rho."""
    monkeypatch.chdir(tmp_path)
    # Its configuration shuts all handlers down, and absl's then closes the stream pytest reads.
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    made = []

    def run_in_process(command, *, log, on_start, **kwargs):
        folder = Path(
            next(a for a in command if a.startswith("resume=")).partition("=")[2].strip("'")
        )
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        made.append(folder.name)
        on_start(1)
        if settings["seed"] == 13:
            log.write_text("Bad luck.\n")
            return 2
        rho = settings["optimizer"].get("rho", 0.01)
        row = {
            "step": 1,
            "frame": 1,
            "time": 0.0,
            "eval/return_mean": -((math.log10(rho) + 2.0) ** 2),
        }
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        save_atomically({"format": 1, "finished": True}, folder / "checkpoints" / "latest.pt")
        return 0

    monkeypatch.setattr(jobs, "run_in_process", run_in_process)

    def run(*arguments: str, program: str = "mbrl-flat-train") -> tuple[int, list[str]]:
        """Exit status, and the runs made."""
        made.clear()
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [program, *COMMON, *arguments])
        status = 0
        try:
            cli.train()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, list(made)

    return run


def test_a_failed_run_stops_no_other_and_is_listed_with_its_reason(sweep, capsys):
    status, made = sweep("seed=1,13,2")
    assert (status, len(made)) == (1, 3)
    lines = capsys.readouterr().out.splitlines()
    assert "3 runs: 1 failed, 2 finished" in lines
    listed = next(line for line in lines if line.startswith("  "))
    assert listed.endswith("seed-13_threads-1: failed: Bad luck.")


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_begins_no_other_run_also_where_a_shell_lets_it_be_ignored(
    sweep, monkeypatch, before
):
    begun = []

    def interrupted(command, *, request, **kwargs):
        begun.append(command)
        request.signal = signal.SIGINT
        return 128 + signal.SIGINT

    monkeypatch.setattr(jobs, "run_in_process", interrupted)
    previous = signal.signal(signal.SIGINT, before)
    try:
        status, _ = sweep("seed=1,2")
    finally:
        signal.signal(signal.SIGINT, previous)

    assert (status, len(begun)) == (128 + signal.SIGINT, 1)


def test_a_second_start_makes_what_is_missing_or_new(sweep):
    sweep("seed=1,2")
    status, made = sweep("seed=1,2,3")
    assert status == 0
    assert made == ["env-dummy_preset-debug_seed-3_threads-1"]


def test_a_setting_that_is_refused_fails_alone_and_leaves_no_folder(sweep, capsys, tmp_path):
    status, made = sweep("agent.config.size=debug,7")
    assert (status, len(made)) == (1, 1)
    assert "size-7_env-dummy_preset-debug_threads-1: failed: " in capsys.readouterr().out
    assert len(list((tmp_path / "s").glob("*/config.yaml"))) == 1


def test_a_radius_that_is_no_number_fails_alone(sweep, capsys, tmp_path):
    status, made = sweep("optimizer=sam", "optimizer.rho=0.1,abc")
    assert (status, len(made)) == (1, 1)
    assert "failed: optimizer.rho must be a number, got 'abc'" in capsys.readouterr().out
    assert len(list((tmp_path / "s").glob("*/config.yaml"))) == 1


def test_a_misspelt_word_is_refused_before_anything_is_made(sweep, capsys, tmp_path):
    status, made = sweep("optimizer=adam,smm")
    assert (status, made) == (2, [])
    message = capsys.readouterr().err
    assert "'smm'; did you mean" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_misspelt_objective_is_refused_before_anything_is_made(sweep, capsys, tmp_path):
    status, made = sweep("experiment=search_rho", "objective=eval/retrun_mean")
    assert (status, made) == (2, [])
    message = capsys.readouterr().err
    assert "'eval/retrun_mean' for objective; did you mean 'eval/return_mean'" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_cluster_that_is_not_here_is_one_error_message(sweep, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, made = sweep("seed=1,2", "hydra/launcher=submitit_slurm")
    assert (status, made) == (2, [])
    message = capsys.readouterr().err
    assert message.startswith('The sweep could not continue: Could not detect "srun"')
    assert message.count("\n") == 1


def test_a_program_that_is_named_like_a_flag_is_none(sweep):
    # As of python -c "from mbrl_flat.cli.main import train; train()" -m ...
    status, made = sweep("seed=1,2", program="-c")
    assert (status, len(made)) == (0, 2)


@pytest.mark.parametrize("flag", ["--cfg=job", "--info=all"])
def test_a_configuration_is_shown_of_one_run_only(sweep, capsys, tmp_path, flag):
    assert sweep("seed=1,2", flag) == (2, [])
    message = capsys.readouterr().err
    assert message == f"{flag} shows one run and -m starts many; leave out one of them.\n"
    assert not (tmp_path / "s").exists()


def test_torchrun_starts_no_sweep(sweep, capsys, monkeypatch, tmp_path):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert sweep("seed=1,2") == (2, [])
    assert "leave out -m" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.filterwarnings("ignore")  # optuna 2 and the SQLAlchemy of today
def test_a_search_finds_the_radius_and_starts_again_where_it_was(sweep, tmp_path):
    words = ["experiment=search_rho", "env=dummy", "hydra.sweeper.n_trials=4"]
    status, made = sweep(*words)
    assert (status, len(made)) == (0, 4)
    best = yaml.safe_load((tmp_path / "s" / "optimization_results.yaml").read_text())
    rows = [json.loads(f.read_text()) for f in (tmp_path / "s").glob("*/metrics.jsonl")]
    assert best["best_value"] == max(row["eval/return_mean"] for row in rows)
    rho = best["best_params"]["optimizer.rho"]
    assert best["best_value"] == pytest.approx(-((math.log10(rho) + 2.0) ** 2))
    assert sweep(*words) == (0, [])


@pytest.mark.parametrize("word", ["variant", "arm"])
def test_runs_are_grouped_by_the_variant_of_a_study(sweep, tmp_path, word):
    """``adam_twice`` is Adam by its optimizer; only its name tells what it is there for."""
    status, made = sweep(f"+{word}=adam,adam_twice,sam", "seed=0,1")
    assert (status, len(made)) == (0, 6)

    assert compare([str(tmp_path / "s"), "--by", word, "--out", str(tmp_path / "report")]) == 0
    with (tmp_path / "report" / "seeds.csv").open(encoding="utf-8") as file:
        found = [(row["label"], row["seed"]) for row in csv.DictReader(file)]
    assert found == [(variant, seed) for variant in ("adam", "adam_twice", "sam") for seed in "01"]


def test_a_sweep_that_did_not_record_its_variants_is_resumed(sweep, tmp_path, capsys):
    sweep("+variant=adam_twice", "seed=0")
    (file,) = tmp_path.glob("s/*/config.yaml")
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert settings["names"].pop("variant") == "adam_twice"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    assert sweep("+variant=adam_twice", "seed=0") == (0, [])
    assert "1 finished before" in capsys.readouterr().out


def test_a_sweep_made_when_a_variant_was_called_arm_is_resumed(sweep, tmp_path, capsys):
    sweep("+variant=adam_twice", "seed=0")
    (folder,) = tmp_path.glob("s/variant-*")
    folder = folder.rename(folder.with_name(folder.name.replace("variant-", "arm-")))
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    settings["names"]["arm"] = settings["names"].pop("variant")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    assert sweep("+arm=adam_twice", "seed=0") == (0, [])
    assert "1 finished before" in capsys.readouterr().out
    assert compare([str(tmp_path / "s"), "--by", "variant", "--out", str(tmp_path / "report")]) == 0
    with (tmp_path / "report" / "seeds.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["adam_twice"]
