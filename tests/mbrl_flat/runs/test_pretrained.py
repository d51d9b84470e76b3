"""Pretrained agents: weights alone, in half precision, that act as their run does."""

import json
import runpy
from pathlib import Path
from unittest import mock

import pytest
import torch

import mbrl_flat.pretrained as shipped
from mbrl_flat import TDMPC2, DreamerV3
from mbrl_flat.cli import main as cli
from mbrl_flat.errors import UserError

ROOT = Path(__file__).parents[3]
SETTINGS = {
    "eval_every": 30, "eval_episodes": 1, "probe_every": 0, "seed_steps": 20, "device": "cpu",
    "threads": 1, "env.episode_length": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run and the pretrained agent that the script makes of it."""
    folder = tmp_path_factory.mktemp("made")
    agent = TDMPC2("dummy:point", preset="debug", run_dir=folder / "run", settings=SETTINGS)
    agent.learn(30)
    words = [str(folder / "run"), "point", "--command", "mbrl-flat-train", "--checkpoint", "latest"]
    words += ["--episodes", "2", "--out", str(folder / "pretrained")]
    with mock.patch("sys.argv", ["make_pretrained", *words]):
        runpy.run_path(str(ROOT / "scripts" / "make_pretrained.py"), run_name="__main__")
    return folder


@pytest.fixture
def offered(made, monkeypatch):
    folder = made / "pretrained"
    card = json.loads((folder / "point" / "card.json").read_text())
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.setattr(shipped, "CARDS", {"point": card})
    return made


def test_weights_are_those_of_the_run_in_half_precision_and_nothing_else(offered):
    found, run = TDMPC2.load_pretrained("point"), TDMPC2.load(offered / "run")
    ours, theirs = found._loaded().agent, run._loaded().agent
    for name, value in theirs.model.state_dict().items():
        source = name.replace("target_q.", "q.")
        expected = theirs.model.state_dict()[source].half().float()
        assert torch.equal(ours.model.state_dict()[name], expected), name
        assert value.shape == expected.shape
    file = offered / "pretrained" / "point" / "checkpoints" / "latest.pt"
    saved = torch.load(file, weights_only=True)
    assert set(saved["agent"]) == {"model", "policy", "scale"}
    with pytest.raises(UserError, match="weights alone and cannot be resumed"):
        found.learn(10)
    with pytest.raises(UserError, match="is a run of tdmpc2"):
        DreamerV3.load_pretrained("point")


def test_the_command_gives_the_return_of_the_card(offered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["pretrained=point", "episodes=2", "device=cpu", "threads=1"]
    monkeypatch.setattr("sys.argv", ["evaluate", *words])
    cli.evaluate()

    (out,) = (tmp_path / "runs" / "pretrained" / "point").glob("evaluations.jsonl")
    row = json.loads(out.read_text())
    assert round(row["eval/return_mean"], 1) == shipped.CARDS["point"]["return_mean"]
    assert {path.name for path in (offered / "pretrained" / "point").iterdir()} >= {"card.json"}
    assert not (offered / "pretrained" / "point" / "evaluations.jsonl").exists()


def test_a_name_that_does_not_exist_is_refused(offered):
    with pytest.raises(UserError, match=r"Unknown pretrained agent 'poynt'; did you mean 'point'"):
        TDMPC2.load_pretrained("poynt")


def test_the_shipped_agents_are_small_and_say_what_they_are():
    real = Path(shipped.__file__).parent
    for folder in {file.parent for file in real.glob("*/card.json")}:
        card = json.loads((folder / "card.json").read_text())
        assert {"task", "seed", "steps", "return_mean", "command"} <= set(card)
        file = folder / "checkpoints" / "latest.pt"
        assert card["bytes"] == file.stat().st_size <= 1_000_000
        assert "optimizer" not in torch.load(file, weights_only=True)["agent"]
        assert "resume: null" in (folder / "config.yaml").read_text()
