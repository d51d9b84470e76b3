"""Whole runs on the device at hand, the replay mirrored there."""

import pytest
import torch

from tests.test_training import run

SETTINGS = ("steps=130", "seed_steps=104", "eval_every=0", "probe_every=0", "num_envs=2")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
def test_a_mirrored_replay_gives_the_run_of_one_that_is_not(tmp_path, device):
    plain, mirrored = (
        run(tmp_path / choice, *SETTINGS, f"device={device}", f"replay_mirror={choice}")
        for choice in ("never", "always")
    )

    assert plain[-1]["train/updates"] == 130
    assert plain == mirrored


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_in_two_parts_is_that_in_one(tmp_path, device):
    settings = (*SETTINGS, f"device={device}", "log_every=10", "checkpoint_every=110")
    whole = run(tmp_path / "whole", *settings)

    run(tmp_path / "parts", *settings, "steps=110")
    parts = run(tmp_path / "parts", *settings)

    assert parts == whole
