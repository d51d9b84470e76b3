"""A study without data, packages or trials is refused before anything is written or said."""

import sys

import pytest

from mbrl_flat.cli import main as cli
from mbrl_flat.studies import command
from mbrl_flat.studies.experiments import task


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["experiment=label_noise"], "sklearn"),
        (["experiment=sam_on"], "sklearn"),
        (["experiment=weight_decay_eos"], "sklearn"),
        (["experiment=hopfield_diffusion"], "sklearn"),
        (["experiment=hopfield_latent_diffusion"], "diffusers"),
        (
            ["experiment=central_claim", "study.task.recording.run=nowhere"],
            "missing; check the path.",
        ),
        (["experiment=central_claim", "study.task.recording.env=a.b"], "nothing called 'a.b'"),
        (["experiment=hopfield", "study.strengths=[]"], "without a trial"),
        (["experiment=hopfield", "study.rotations=0"], "without a trial"),
    ],
)
def test_what_is_missing_is_said_first(fails, tmp_path, monkeypatch, words, missing):
    spoken = []
    monkeypatch.setattr(command, "say", spoken.append)
    task._digits.cache_clear()
    for package in ("sklearn.datasets", "diffusers"):
        if package.startswith(missing):
            monkeypatch.setitem(sys.modules, package, None)
    assert missing in fails(*words, "preset=ci", entry=cli.supervised)
    assert not spoken
    assert not list(tmp_path.iterdir())
