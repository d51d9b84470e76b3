"""Recordings follow from their settings, and are made once."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.runs.offline_data import recorded_episodes
from mbrl_flat.studies.offline.behaviour import CORRELATIONS, STRENGTHS, action_sequence
from mbrl_flat.studies.offline.recording import Recording, named_part

FIXTURES = Path(__file__).parents[3] / "fixtures"


def recording(tmp_path, **changes):
    settings = {
        "env": "mbrl_flat.envs.dummy.make",
        "task": "point",
        "episodes": 3,
        "length": 8,
        "tail": 4,
    }
    return Recording(**{**settings, "folder": str(tmp_path), **changes})


def test_actions_stay_in_the_box_and_follow_from_the_seed():
    first, again, other = (
        action_sequence(50, 4, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )

    assert first.shape == (50, 4)
    assert first.dtype == np.float32
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_smoothed_noise_keeps_its_strength_at_every_correlation(monkeypatch):
    module = "mbrl_flat.studies.offline.behaviour"
    for correlation in CORRELATIONS:
        monkeypatch.setattr(f"{module}.CORRELATIONS", (correlation,))
        monkeypatch.setattr(f"{module}.STRENGTHS", (0.2, 0.2))
        actions = action_sequence(4, 50_000, rng=np.random.default_rng(0))

        # Standard deviations of 50,000 draws; nothing is clipped at 0.2.
        np.testing.assert_allclose(actions.std(1), 0.2, rtol=0.02)
        measured = np.corrcoef(actions[2], actions[3])[0, 1]
        np.testing.assert_allclose(measured, correlation, atol=0.02)
    assert STRENGTHS[0] < STRENGTHS[1]


def test_an_episode_follows_from_its_number_whatever_was_recorded_before(tmp_path):
    whole = recording(tmp_path / "whole").load()
    parted = recording(tmp_path / "parted", episodes=2)
    parted.load()
    (parted.path / "00000.npz").unlink()

    resumed = recording(tmp_path / "parted").load()

    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    assert whole["obs"].shape == (3, 13, 3)
    assert not np.array_equal(whole["obs"][0], whole["obs"][1])


def test_a_recording_is_made_once(tmp_path):
    ours = recording(tmp_path)
    ours.load()
    before = {file: file.stat().st_mtime_ns for file in ours.path.iterdir()}

    ours.load()

    assert {file: file.stat().st_mtime_ns for file in ours.path.iterdir()} == before
    assert len(before) == 3


def test_other_settings_have_another_folder_and_more_episodes_the_same(tmp_path):
    ours = recording(tmp_path)

    assert recording(tmp_path, episodes=5).path == ours.path
    others = [recording(tmp_path, **change).path for change in ({"seed": 1}, {"tail": 5})]
    assert len({ours.path, *others}) == 3


def test_the_cache_of_the_user_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert recording(tmp_path, folder=None).path.parent == tmp_path / "mbrl_flat" / "recordings"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 60}, "ended after 50 steps; this study needs 64"),
        ({"task": "point-discrete"}, "discrete actions"),
        ({"env": "mbrl_flat.envs.dummy.mak"}, "nothing called 'mbrl_flat.envs.dummy.mak'"),
        ({"env": "make"}, "nothing called 'make'"),
    ],
)
def test_what_cannot_be_recorded_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        recording(tmp_path, **changes).load()


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="episodes must be at least 1, got 0"):
        Recording(episodes=0)
    with pytest.raises(UserError, match="tail must be at least 0, got -1"):
        Recording(tail=-1)
    assert named_part("math.hypot")(3, 4) == 5.0


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(FIXTURES / "run_of_old_names", tmp_path / "run"))


def test_the_replay_of_a_run_is_a_data_set_of_all_levels_of_skill(run):
    recorded = recorded_episodes(run)
    settings = {"episodes": 2, "length": 12, "tail": 4, "start": 2}

    data = Recording(run=str(run), **settings).load()

    assert data["obs"].shape == (2, 17, 3)
    assert data["action"].shape[:2] == data["reward"].shape == (2, 16)
    sources = {0, len(recorded) - 1}
    for obs, action, reward in zip(data["obs"], data["action"], data["reward"], strict=True):
        (source,) = {n for n in sources if np.array_equal(recorded[n]["state"][2:19], obs)}
        np.testing.assert_array_equal(recorded[source]["action"][2:18], action)
        np.testing.assert_array_equal(recorded[source]["reward"][2:18], reward)
        sources -= {source}
    assert sources == set()


def test_a_run_with_too_few_long_episodes_is_refused(run):
    with pytest.raises(UserError, match=r"episodes of at least 90 steps, but episodes=3"):
        Recording(run=str(run), episodes=3, length=80, tail=10).load()
    with pytest.raises(UserError, match="There is no run at"):
        Recording(run=str(run / "nothing"), episodes=3).load()
