"""The commands as a user types them, in this process."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mbrl_flat.cli import commands
from mbrl_flat.cli import main as cli
from mbrl_flat.runs import folder as run_folder
from mbrl_flat.runs.folder import writing
from mbrl_flat.training.checkpoint import load_safely

TINY = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu", "steps=150",
    "eval_every=75", "probe_every=0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("agent=tdmcp2", ["'tdmcp2'", "'tdmpc2'"]),
        ("optimizer=smm", ["'smm'", "'sam'"]),
        ("env=dcm", ["'dcm'", "'dmc'"]),
        ("preset=cpuu", ["'cpuu'", "'cpu'"]),
        ("preset=ci", ["mbrl-flat-supervised only", "cpu or debug"]),
        ("sed=3", ["'sed'", "'seed'"]),
        ("+variantt=adam_twice", ["'variantt'"]),
        ("+sed=3", ["'sed'", "'seed'"]),
        ("+optimizer.roh=0.1", ["Unknown key 'optimizer.roh'"]),
        ("+agent.config.horizn=3", ["'agent.config.horizn'", "'agent.config.horizon'"]),
        ("optimizer.learning_rate=0.1", ["learning rate is model_lr"]),
        ("optimizer.rho=0.1", ["this optimizer has no radius", "+variant=adam,sam"]),
        ("optimizer.ascent_fraction=0.5", ["++optimizer.ascent_fraction=VALUE"]),
        ("seed=1,2", ["seed=1,2 holds several values", "-m", "seed=[1,2]"]),
        ("run_dir=a=b", ["\"run_dir='a=b'\""]),
        ("run_dir=runs/[x]", ["\"run_dir='runs/[x]'\""]),
        ("optimizer.betas=[0.9", ["a bracket is missing"]),
        ("wandb.tags={a:1}", ["wandb.tags must be a list, such as [a,b]."]),
        ("agent.config=[1,2]", ["agent.config must be a mapping, such as {a: 1}."]),
        ("wandb.tags=paper", ["wandb.tags must be a list, such as [a,b]"]),
        ("experiment=label_noise", ["mbrl-flat-supervised"]),
        ("agent.config.horizn=4", ["'agent.config.horizn'", "'agent.config.horizon'"]),
        ("steps=abc", ["steps must be a whole number, got 'abc'."]),
        ("seed=1.5", ["seed must be a whole number, got 1.5."]),
        ("seed=99999999999999999999", ["seed must be within +-2**63", "got 99999999999999999999;"]),
        ("seed=9223372036854775000", ["seed must be below 2**62", "9223"]),
        ("model_lr=fast", ["model_lr must be a number, got 'fast'."]),
        ("progress=maybe", ["progress must be true or false, got 'maybe'."]),
        ("agent.config.horizon=abc", ["horizon must be a whole number", "'abc'"]),
        ("steps=0", ["steps", "0", "at least 1"]),
        ("seed=-1", ["seed", "-1", "at least 0"]),
        ("eval_episodes=0", ["eval_episodes", "0", "at least 1"]),
        ("device=cudda", ["'cudda'", "'cuda'"]),
        ("on_nonfinite=rise", ["'rise'", "'raise'"]),
        ("agent.config.size=7", ["'7'", "cpu"]),
        ("replay.policy=top_enrgy", ["'top_enrgy'", "'top_energy'"]),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(fails, argument, parts):
    message = fails(*TINY, argument)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("entry", "arguments", "said"),
    [
        (cli.evaluate, ["run=r", "optimizer=sam"], "has no optimizer to choose"),
        (cli.evaluate, ["run=r", "+optimizer=sam"], "Unknown key 'optimizer'"),
        (cli.evaluate, ["run=r", "-m", "seed=1,2"], "leave out -m"),
        (cli.evaluate, ["r"], "such as run=runs/NAME"),
        (cli.probe, [], "Say which run: run=runs/NAME."),
        (cli.probe, ["run=r", "probe=open_loop"], "probe=rollout_error"),
        (cli.supervised, ["experiment=first_run"], "mbrl-flat-train"),
        (cli.supervised, ["label_noise"], "such as experiment=label_noise"),
        (cli.train, ["optimizer=vgd", "optimizer.rho=0.1"], "radius optimizer.sigma"),
        (cli.train, ["--resume=r"], "without dashes: resume=r, not --resume=r"),
        (cli.train, ["resume=r", "optimizer.lr=0.1"], "A resumed run keeps its settings"),
    ],
)
def test_words_of_another_command_are_refused(command, fails, entry, arguments, said):
    if "probe=open_loop" in arguments:
        command(cli.train, *TINY, "run_dir=r")
    assert said in fails(*arguments, entry=entry)


def test_flags_may_stand_among_the_settings(command, capsys):
    command(cli.train, "seed=3", "--cfg", "job", "steps=7")
    shown = capsys.readouterr().out
    assert "seed: 3\n" in shown
    assert "steps: 7\n" in shown


@pytest.mark.parametrize(("preset", "steps"), [("debug", 300), ("cpu", 20_000)])
def test_small_presets_make_short_runs_of_random_actions_too(preset, steps):
    config, _ = cli.compose_run("env=dummy", "agent=random", f"preset={preset}")
    assert config.steps == steps


@pytest.mark.parametrize("entry", [cli.train, cli.evaluate, cli.probe, cli.supervised])
def test_ctrl_c_outside_of_the_loop_is_one_word_and_status_130(command, capfd, monkeypatch, entry):
    def interrupted(*arguments, **words):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "parse_arguments", interrupted)
    with pytest.raises(SystemExit) as stop:
        command(entry, "steps=10")
    assert stop.value.code == 130
    assert capfd.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("entry", "arguments", "known"),
    [
        (cli.evaluate, ["episods=3"], "'episodes'"),
        (cli.probe, ["episods=3"], "'episodes'"),
        (cli.probe, ["probe=rollout_error", "probe.horizn=3"], "'probe.horizon'"),
        (cli.supervised, ["experiment=label_noise", "study.seedz=3"], "'study.seeds'"),
    ],
)
def test_a_misspelt_key_gets_one_of_the_same_command(fails, entry, arguments, known):
    run = [] if entry is cli.supervised else ["run=here"]
    message = fails(*run, *arguments, entry=entry)
    assert known in message.partition("did you mean")[2]


def test_a_misspelt_task_names_the_nearest_one_and_leaves_no_folder(fails, tmp_path):
    message = fails(*[a for a in TINY if a != "env=dummy"], "env.task=walker-wlak")
    assert message.startswith("Unknown task 'walker-wlak' for env=dmc; did you mean 'walker-walk'")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_leaves_no_folder(fails, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    message = fails(*TINY, "env=atari", "env.task=pong", "run_dir=here")
    assert "ale_py" in message or "ale-py" in message
    assert not (tmp_path / "here").exists()


def test_a_run_that_is_not_there_cannot_be_resumed(fails):
    assert "runs/none" in fails("resume=runs/none")


def test_a_negative_radius_is_refused_before_a_folder_is_made(fails, tmp_path):
    message = fails(*TINY, "optimizer=sam", "optimizer.rho=-0.1", "run_dir=r")
    assert "rho must be a number of at least 0 that is finite, got -0.1" in message


@pytest.mark.parametrize("value", ["abc", "true", "[0.1]"])
def test_a_radius_that_is_no_number_is_refused_before_a_folder_is_made(fails, tmp_path, value):
    message = fails(*TINY, "optimizer=sam", f"optimizer.rho={value}")
    assert message.startswith("optimizer.rho must be a number, got ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("value", ["nan", ".inf", "-1"])
def test_updates_that_cannot_be_counted_are_refused(fails, tmp_path, value):
    message = fails(*TINY, f"updates_per_step={value}", "run_dir=r")
    assert "updates_per_step" in message
    assert not (tmp_path / "r").exists()


def test_an_optimizer_setting_of_another_method_is_refused(fails):
    assert "'optimizer.rho'" in fails(*TINY, "optimizer=adam", "optimizer.rho=1")


def test_a_run_writes_what_is_needed_to_rebuild_it(command, tmp_path):
    command(cli.train, *TINY, "run_dir=here")
    folder = tmp_path / "here"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all({"step", "frame", "time"} <= set(row) for row in rows)
    assert rows[-1]["step"] == 150
    names = {key for row in rows for key in row}
    assert {"eval/return_mean", "eval/random_return_mean", "probe/value/bias"} <= names
    assert {"train/total_loss", "optim/grad_norm", "time/update", "episode/return"} <= names
    environment = json.loads((folder / "environment.json").read_text())
    assert {"git_revision", "packages", "device", "host_cores"} <= set(environment)
    assert (folder / "plots" / "return.png").stat().st_size > 1000
    assert (folder / "checkpoints" / "latest.pt").is_file()


def test_ctrl_c_writes_one_more_checkpoint_and_exits_130(tmp_path):
    code = "from mbrl_flat.cli.main import train; train()"
    arguments = [*TINY, "steps=100000", "checkpoint_every=0", "log_every=20", "run_dir=here"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "step 120" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        lines = process.stdout.read().splitlines()
        assert process.wait(60) == 130
    assert lines[-1] == "stopped before its end; resume with mbrl-flat-train resume=here"
    saved = load_safely(tmp_path / "here" / "checkpoints" / "latest.pt")
    assert saved["step"] >= 120


def test_a_run_that_is_past_the_steps_asked_for_is_told_so(command, fails, tmp_path):
    command(cli.train, *TINY, "run_dir=here", "agent=random")
    before = (tmp_path / "here" / "metrics.jsonl").read_bytes()
    message = fails("resume=here", "steps=100")
    assert message.startswith(
        "here is at step 150 already, and steps=100 is the length of the whole"
    )
    assert (tmp_path / "here" / "metrics.jsonl").read_bytes() == before


def test_an_existing_run_is_never_overwritten(command, fails, tmp_path):
    command(cli.train, *TINY, "run_dir=here", "agent=random")
    before = (tmp_path / "here" / "metrics.jsonl").read_bytes()
    message = fails(*TINY, "run_dir=here")
    assert "never overwritten" in message
    assert (tmp_path / "here" / "metrics.jsonl").read_bytes() == before


def test_on_a_full_disk_the_last_good_checkpoint_stays(command, fails, tmp_path, monkeypatch):
    command(cli.train, *TINY, "run_dir=here", "agent=random")
    latest = tmp_path / "here" / "checkpoints" / "latest.pt"
    before = latest.read_bytes()

    save = torch.save

    def full(value, file):
        if "latest" not in file.name:
            return save(value, file)
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    message = fails("resume=here", "steps=200", "threads=1")
    assert message.startswith("No space left on device: here/checkpoints/latest.pt; what was saved")
    assert latest.read_bytes() == before


def test_a_run_that_another_process_writes_is_not_resumed(command, fails, tmp_path, monkeypatch):
    command(cli.train, *TINY, "run_dir=here", "agent=random")
    before = (tmp_path / "here" / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.0)
    with writing(tmp_path / "here", new=False):
        message = fails("resume=here", "steps=300")
    assert message.startswith("Another process is writing to here; wait for its end")
    assert (tmp_path / "here" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("text", ["", "agent: [unclosed", "- a list"])
def test_a_damaged_configuration_is_one_error_message(fails, tmp_path, text):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.yaml").write_text(text)
    message = fails("resume=here")
    assert message.startswith("here/config.yaml is damaged (")


def test_a_run_that_was_moved_takes_its_paths_with_it(tmp_path):
    (tmp_path / "new").mkdir()
    text = "run_dir: runs/old\nprobes: {open_loop: {folder: runs/old/videos}}\n"
    (tmp_path / "new" / "config.yaml").write_text(text)
    cfg, folder = commands.load_settings(str(tmp_path / "new"))
    assert cfg["run_dir"] == str(folder)
    assert cfg["probes"]["open_loop"]["folder"] == str(tmp_path / "new" / "videos")


def test_a_resumed_run_refuses_other_settings(command, fails):
    command(cli.train, *TINY, "run_dir=here", "agent=random")
    message = fails("resume=here", "seed=3")
    assert "seed=3" in message


def test_evaluate_reports_returns_with_their_spread(command, capsys, tmp_path):
    command(cli.train, *TINY, "run_dir=here")
    capsys.readouterr()
    command(cli.evaluate, "run=here", "episodes=3", "threads=1")
    output = capsys.readouterr().out
    assert "eval/return_mean" in output
    assert "eval/return_std" in output
    row = json.loads((tmp_path / "here" / "evaluations.jsonl").read_text())
    assert row["episodes"] == 3


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("sharpness", "probe/sharpness/lambda_max"),
        ("rollout_error", "probe/rollout/latent_error_1"),
        ("value_error", "probe/mixed/bias"),
        ("landscape", "probe/landscape/centre"),
    ],
)
def test_every_probe_looks_at_a_run_and_changes_nothing_of_it(
    command, capsys, tmp_path, probe, expected
):
    command(cli.train, *TINY, "run_dir=here", "heldout_fraction=0.5", "eval_every=0")
    capsys.readouterr()
    files = ("metrics.jsonl", "config.yaml", "checkpoints/latest.pt")
    before = [(tmp_path / "here" / file).read_bytes() for file in files]
    small = {"sharpness": ["probe.iterations=3"], "landscape": ["probe.points=5"]}.get(probe, [])
    command(cli.probe, "run=here", f"probe={probe}", "episodes=2", "threads=1", *small)
    assert expected in capsys.readouterr().out
    row = json.loads((tmp_path / "here" / "probes.jsonl").read_text())
    assert row["probe"] == probe
    assert expected in row
    assert before == [(tmp_path / "here" / file).read_bytes() for file in files]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("episodes=abc", "episodes must be a whole number, got 'abc'."),
        ("episodes=0", "episodes must be at least 1, got 0."),
        ("seed=-1", "seed must be at least 0, got -1."),
    ],
)
@pytest.mark.parametrize("entry", [cli.evaluate, cli.probe])
def test_numbers_that_nothing_can_be_judged_by_are_refused(fails, entry, argument, said):
    assert fails("run=here", argument, entry=entry) == said + "\n"


def test_an_agent_without_a_model_cannot_be_probed(command, fails):
    command(cli.train, *TINY, "run_dir=here", "agent=random")
    assert "no world model" in fails("run=here", "threads=1", entry=cli.probe)


def test_a_misspelt_probe_names_the_nearest_one(fails):
    message = fails("run=here", "probe=sharpnes", entry=cli.probe)
    assert "'sharpnes'; did you mean 'sharpness'" in message


def test_evaluate_refuses_a_truncated_checkpoint_and_leaves_it_alone(command, fails, tmp_path):
    command(cli.train, *TINY, "run_dir=here")
    file = tmp_path / "here" / "checkpoints" / "latest.pt"
    file.write_bytes(file.read_bytes()[:1000])
    message = fails("run=here", "threads=1", entry=cli.evaluate)
    assert "truncated" in message
    message = fails("resume=here")
    assert "truncated" in message
    assert file.stat().st_size == 1000


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_checkpoint_that_would_execute_code_is_refused(command, fails, tmp_path):
    command(cli.train, *TINY, "run_dir=here", "agent=random")
    torch.save({"format": 1, "agent": Malicious()}, tmp_path / "here" / "checkpoints" / "latest.pt")
    message = fails("run=here", "threads=1", entry=cli.evaluate)
    assert "execute" in message
    assert not (tmp_path / "executed").exists()


def test_a_loss_that_is_not_finite_stops_with_step_module_and_checkpoint(fails):
    message = fails(*TINY, "run_dir=here", "agent.config.reward_coef=1e39")
    assert "step 100" in message
    assert "gradient of" in message
    assert "here/checkpoints/latest.pt (step 0)" in message


def test_steps_that_are_not_finite_can_be_skipped_and_are_counted(command, tmp_path):
    command(cli.train, *TINY, "run_dir=here", "agent.config.reward_coef=1e39", "on_nonfinite=skip")
    lines = (tmp_path / "here" / "metrics.jsonl").read_text().splitlines()
    skipped = [json.loads(line).get("optim/skipped", 0) for line in lines]
    assert max(skipped) > 0
