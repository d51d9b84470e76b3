"""Videos and observation errors of a model whose decoder is known."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics import open_loop_probe
from mbrl_flat.diagnostics.open_loop_probe import OpenLoopProbe
from mbrl_flat.diagnostics.probe import NothingToMeasure
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Prediction
from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(
    obs={"image": (3, 4, 6)},
    images=frozenset({"image"}),
    action=Continuous(dim=1),
    episode_length=12,
)


class Shifted:
    """The latent is the brightness; each action adds to it, and the model may add too much."""

    discount = 0.9

    def __init__(self, extra=0.0):
        self.extra = extra

    def posterior(self, batch):
        return batch.obs["image"][..., 0, 0, :1].double() / 255.0

    def predict(self, latent, action):
        after = latent + action.double() + self.extra
        return Prediction(after, after[:, 0], torch.ones_like(after[:, 0]))

    def value(self, latent):
        return latent[..., 0]

    def probe_loss(self, batch):
        raise NotImplementedError

    def decode(self, latent):
        return {"image": latent[..., None, None].expand(*latent.shape[:-1], 3, 4, 6)}


@pytest.fixture
def replay():
    """Images of one brightness, which the action changes by a whole number of levels."""
    rng = np.random.default_rng(0)
    stored = Replay(SPEC, 400, heldout_fraction=0.3, seed=0)
    for _ in range(12):
        level = int(rng.integers(60, 120))
        stored.begin(0, {"image": np.full((3, 4, 6), level, np.uint8)})
        for step in range(12):
            change = int(rng.integers(-5, 6))
            level += change
            image = np.full((3, 4, 6), level, np.uint8)
            action = np.array([change / 255.0], np.float32)
            stored.add(0, action, 0.0, {"image": image}, terminated=False, done=step == 11)
    return stored


def probe(folder, **settings):
    return OpenLoopProbe(**{"horizon": 4, "context": 2, "videos": 2, "folder": folder} | settings)


def test_a_perfect_model_has_no_observation_error(replay, tmp_path):
    row = probe(tmp_path, videos=0)(Shifted(), replay)

    assert set(row) == {f"probe/rollout/observation_error_{k}" for k in range(5)}
    assert max(row.values()) < 1e-9
    assert list(tmp_path.iterdir()) == []


def test_errors_grow_with_what_the_model_adds_at_every_step(replay, tmp_path):
    row = probe(tmp_path, videos=0)(Shifted(extra=0.1), replay)

    errors = [row[f"probe/rollout/observation_error_{k}"] for k in range(5)]
    assert errors[0] < 1e-9
    for k in range(2, 5):
        assert errors[k] == pytest.approx(k**2 * errors[1], rel=1e-4)


class Frames(list):
    """Takes what a video would be written of."""

    made: ClassVar = {}

    def __init__(self, path, *, fps):
        super().__init__()
        self.made[path.name] = self

    def __enter__(self):
        return self.append

    def __exit__(self, *error):
        pass


def test_a_video_has_truth_imagination_and_their_difference(replay, tmp_path, monkeypatch):
    monkeypatch.setattr(open_loop_probe, "VideoWriter", Frames)

    probe(tmp_path)(Shifted(extra=0.1), replay)

    frames = np.stack(Frames.made["open_loop_0001.mp4"]).astype(int)
    assert frames.shape == (2 + 5, 3 * 4, 2 * 6, 3)
    true, imagined, difference = frames[:, :4], frames[:, 4:8], frames[:, 8:]
    np.testing.assert_array_equal(imagined[:3], true[:3])
    np.testing.assert_allclose(imagined[4] - true[4], 2 * 0.1 * 255, atol=1)
    np.testing.assert_allclose(difference, (imagined - true + 255) / 2, atol=1)


def test_without_a_decoder_or_long_episodes_the_reason_is_named(replay, tmp_path, linear_agent):
    with pytest.raises(NothingToMeasure, match="no decoder"):
        probe(tmp_path)(linear_agent, replay)
    with pytest.raises(NothingToMeasure, match="no 42 transitions in a row"):
        probe(tmp_path, horizon=40)(Shifted(), replay)


def test_a_replay_too_small_to_hold_episodes_out_is_named(tmp_path):
    small = Replay(SPEC, SPEC.episode_length, heldout_fraction=0.9, seed=0)
    small.begin(0, {"image": np.zeros((3, 4, 6), np.uint8)})

    with pytest.raises(NothingToMeasure, match="replay_capacity of three whole episodes"):
        probe(tmp_path)(Shifted(), small)


def test_a_resumed_open_loop_probe_draws_the_same_subsequences(replay, tmp_path):
    first = probe(tmp_path, videos=0)
    first(Shifted(0.1), replay)
    resumed = probe(tmp_path, videos=0, seed=7)
    resumed.load_state_dict(first.state_dict())

    assert resumed(Shifted(0.1), replay) == first(Shifted(0.1), replay)


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"context": -1}, {"videos": 99}, {"films": 98}])
def test_settings_of_a_video_out_of_range_are_refused(wrong, tmp_path):
    with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
        probe(tmp_path, **wrong)
