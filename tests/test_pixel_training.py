"""The whole path from images, on the dummy environment: no simulator, no display."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mbrl_flat.cli import main as cli
from mbrl_flat.training.checkpoint import load_safely

TINY = [
    "env=dummy", "env.obs=rgb", "preset=debug", "progress=false", "threads=1", "device=cpu",
    "optimizer=sam", "optimizer.rho=0.05", "eval_every=0", "probe_every=0", "log_every=10",
    "seed_steps=50", "agent.config.batch_size=2", "updates_per_step=0.25",
]  # fmt: skip


@pytest.fixture
def train(command):
    return partial(command, cli.train)


def weights(folder: str) -> torch.Tensor:
    agent = load_safely(Path(folder) / "checkpoints" / "latest.pt")["agent"]
    return torch.cat([value.flatten() for value in agent["model"].values()])


def losses(folder: str) -> list[float]:
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [row["train/total_loss"] for row in map(json.loads, lines) if "train/total_loss" in row]


def test_a_resumed_run_from_images_on_the_disk_is_an_uninterrupted_one_in_memory(train):
    train(*TINY, "steps=80", "run_dir=whole")
    train(*TINY, "steps=60", "run_dir=parts", "replay_storage=disk")
    train("resume=parts", "steps=80", "progress=false")
    assert len(losses("whole")) > 2
    assert losses("whole") == losses("parts")
    assert torch.equal(weights("whole"), weights("parts"))


def test_the_name_of_a_run_says_what_it_saw(train):
    train("env=dummy", "env.obs=rgb", "agent=random", "steps=1", "eval_every=0", "progress=false")
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("point-rgb_random_adam_s0_")
    assert OmegaConf.load(folder / "config.yaml").names.task == "point-rgb"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("replay_storage=disc", "Unknown replay_storage 'disc'; did you mean 'disk'?"),
        ("agent.config.random_shift=-2", "random_shift must be at least 0, got -2"),
        ("env.obs=rbg", "Unknown obs 'rbg' for env=dummy; did you mean 'rgb'?"),
    ],
)
def test_a_wrong_setting_gets_one_sentence(train, capsys, setting, message):
    with pytest.raises(SystemExit) as stop:
        train(*TINY, setting, "run_dir=here")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
