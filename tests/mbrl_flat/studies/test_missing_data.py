"""A study whose data or packages are missing is refused before anything is written or said."""

import sys

import pytest

from mbrl_flat.cli import main as cli
from mbrl_flat.studies import command
from mbrl_flat.studies.experiments import task


@pytest.mark.parametrize(
    ("words", "absent", "said"),
    [
        (["experiment=label_noise"], "sklearn.datasets", "sklearn"),
        (["experiment=sam_on"], "sklearn.datasets", "sklearn"),
        (["experiment=weight_decay_eos"], "sklearn.datasets", "sklearn"),
        (["experiment=hopfield_diffusion"], "sklearn.datasets", "sklearn"),
        (["experiment=hopfield_latent_diffusion"], "diffusers", "diffusers"),
        (["experiment=central_claim", "study.task.recording.run=nowhere"], "", "nowhere"),
        (["experiment=central_claim", "study.task.recording.env=a.b"], "", "nothing called 'a.b'"),
    ],
)
def test_what_is_missing_is_said_first(fails, tmp_path, monkeypatch, words, absent, said):
    spoken = []
    monkeypatch.setattr(command, "say", spoken.append)
    task._digits.cache_clear()
    if absent:
        monkeypatch.setitem(sys.modules, absent, None)
    message = fails(*words, "preset=ci", entry=cli.supervised)
    assert said in message
    assert not spoken
    assert not list(tmp_path.iterdir())
