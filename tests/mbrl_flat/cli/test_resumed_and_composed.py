"""Commands on saved runs and on configurations of a user's own, in this process."""

import json
import shutil

import pytest
import yaml

from mbrl_flat.cli import main as cli
from mbrl_flat.cli.arguments import CONFIGS
from mbrl_flat.cli.help import answer
from mbrl_flat.logging.jsonl import read_metrics

TINY = [
    "env=dummy", "preset=debug", "progress=false", "threads=1", "device=cpu", "steps=80",
    "env.episode_length=20", "seed_steps=60", "eval_every=0", "probe_every=0", "log_every=10",
    "heldout_fraction=0.4", "agent.config.batch_size=8", "agent.config.planner.iterations=1",
]  # fmt: skip


def test_a_radius_may_change_on_resume_and_stays(command, fails, tmp_path):
    command(cli.train, *TINY, "run_dir=here", "optimizer=sam")
    command(cli.train, "resume=here", "steps=100", "optimizer.rho=0.2", "progress=false")

    config = yaml.safe_load((tmp_path / "here" / "config.yaml").read_text())
    norms = {
        row["step"]: row["optim/perturbation_norm"]
        for row in read_metrics(tmp_path / "here" / "metrics.jsonl")
        if "optim/perturbation_norm" in row
    }
    assert config["optimizer"]["rho"] == 0.2
    assert norms[80] == pytest.approx(0.05, rel=1e-3)
    assert norms[100] == pytest.approx(0.2, rel=1e-3)

    message = fails("resume=here", "steps=110", "optimizer.sigma=0.2")
    assert "optimizer.sigma" in message


def test_weights_of_a_method_may_change_on_resume_and_what_its_state_holds_may_not(
    command, fails, tmp_path
):
    command(cli.train, *TINY, "run_dir=here", "optimizer=cr_sam")
    command(cli.train, "resume=here", "steps=90", "optimizer.gamma=0", "optimizer.every=7")

    config = yaml.safe_load((tmp_path / "here" / "config.yaml").read_text())
    assert (config["optimizer"]["gamma"], config["optimizer"]["every"]) == (0, 7)
    for word in ("optimizer.base.lr=1", "optimizer.only=[norm]", "optimizer.decay=0.5"):
        assert f"keeps its settings, but {word} was given" in fails("resume=here", word)
    refused = fails("resume=here", "steps=95", "optimizer.gamma=-1")
    assert refused == "gamma must be at least 0, got -1.\n"


def test_a_record_without_its_checkpoint_is_not_started_over(command, fails, tmp_path):
    command(cli.train, *TINY, "run_dir=here")
    shutil.rmtree(tmp_path / "here" / "checkpoints")
    record = (tmp_path / "here" / "metrics.jsonl").read_bytes()

    message = fails("resume=here", "steps=90", "progress=false")

    assert message == (
        "here has recorded metrics but no checkpoint, so it cannot be resumed; put "
        "checkpoints/latest.pt back, or remove metrics.jsonl to start again.\n"
    )
    assert (tmp_path / "here" / "metrics.jsonl").read_bytes() == record


def test_a_probe_is_what_its_configuration_builds_whatever_its_name(command, tmp_path):
    command(cli.train, *TINY, "run_dir=here")
    (tmp_path / "own" / "probe").mkdir(parents=True)
    for name, copy in {"value_error": "mine", "landscape": "slice", "rollout_error": "w"}.items():
        text = (CONFIGS / "probe" / f"{name}.yaml").read_text()
        (tmp_path / "own" / "probe" / f"{copy}.yaml").write_text(text)
    words = ["run=here", "episodes=1", "threads=1", "--config-dir", "own"]
    for copy, small in {
        "mine": [],
        "slice": ["probe.points=3"],
        "w": ["probe.batch_size=4"],
    }.items():
        command(cli.probe, *words, f"probe={copy}", *small)

    lines = (tmp_path / "here" / "probes.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["probe"] for row in rows] == ["mine", "slice", "w"]
    metrics = ("probe/mixed/bias", "probe/landscape/centre", "probe/rollout/latent_error_1")
    assert all(name in row for name, row in zip(metrics, rows, strict=True))


def test_keyword_arguments_of_an_environment_are_passed_on(fails):
    _, parts = cli.compose_run("env=gym", "+env.kwargs.g=3.0")
    env = parts.env(seed=0)
    assert env.unwrapped.g == 3.0
    env.close()
    message = fails("env=gym", "preset=debug", "+env.kwargs.gravity=1", "run_dir=r")
    assert "gravity" in message
    assert "Pendulum-v1" in message


@pytest.mark.parametrize("name", ["train", "evaluate", "probe", "supervised"])
def test_every_command_explains_itself(name, capsys):
    assert answer(name, ["--help"])
    shown = capsys.readouterr().out
    assert f"mbrl-flat-{name}" in shown
    assert len(shown.splitlines()) > 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config-name", "nope"], "Unknown configuration 'nope'"),
        (["--cfg", "job", "--package", "nope"], "package 'nope' not found in config"),
        (["--experimental-rerun", "nope"], "File nope does not exist!"),
    ],
)
@pytest.mark.filterwarnings("ignore:Experimental rerun")
def test_what_the_configuration_library_refuses_is_one_message(fails, words, said):
    assert said in fails(*words)
