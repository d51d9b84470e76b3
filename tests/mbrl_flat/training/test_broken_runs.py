"""Runs that cannot learn or cannot be saved end early, with the reason."""

import errno
import os
import random
import re
from contextlib import nullcontext
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from mbrl_flat.data import storage
from mbrl_flat.data.capacity import why_no_update
from mbrl_flat.data.replay import Replay
from mbrl_flat.data.storage import allocate
from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import EnvironmentFailure, UserError
from mbrl_flat.runs.loading import append_row, check_shapes, check_weights, shapes_of_spec
from mbrl_flat.runtime.files import check_inside
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.training.checkpoint import CheckpointFolder
from mbrl_flat.training.clocks import Every
from mbrl_flat.training.train_config import TrainConfig, check_steps

SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=8)


class Faulty(gym.Env):
    """Returns what it is told to at its third step."""

    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    observation_space = gym.spaces.Dict({"state": gym.spaces.Box(-9, 9, (3,), np.float32)})

    def __init__(self, entry, reward):
        self.entry, self.reward, self.time = entry, reward, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"state": np.zeros(3, np.float32)}, {}

    def step(self, action):
        self.time += 1
        state = np.zeros(3, np.float32)
        if self.time == 3:
            state[1] = self.entry
        return {"state": state}, self.reward if self.time == 3 else 0.0, False, False, {}


def make(entry, reward, *, seed, render=False):
    env = Faulty(entry, reward)
    env.np_random = np.random.default_rng(seed)
    return Resumable(env, episode_length=8, action_repeat=1)


@pytest.mark.parametrize(
    ("entry", "reward", "said"),
    [
        (np.nan, 0.0, "returned nan as its observation 'state'[1]"),
        (-np.inf, 0.0, "returned -inf as its observation 'state'[1]"),
        (0.0, np.inf, "returned inf as its reward"),
        (0.0, 1e300, "returned 1e+300 as its reward"),
    ],
)
def test_a_number_that_is_not_finite_is_named_and_not_recorded(entry, reward, said, collector_of):
    collector = collector_of(partial(make, entry, reward))
    collector.start()
    collector.step(random=True)
    collector.step(random=True)

    with pytest.raises(EnvironmentFailure, match=re.escape(f"it {said}")):
        collector.step(random=True)

    assert len(collector.replay) == 3


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.PCG64, np.random.SFC64])
def test_the_state_of_every_bit_generator_survives_a_checkpoint(tmp_path, kind):
    rng = np.random.Generator(kind(3))
    rng.normal()
    folder = CheckpointFolder(tmp_path)

    folder.save_latest({"envs": [{"start": rng.bit_generator.state}]}, Replay(SPEC, 10))
    saved = folder.load_latest(device=torch.device("cpu"))["envs"][0]["start"]

    other = np.random.Generator(kind(4))
    other.bit_generator.state = saved
    assert np.array_equal(other.normal(size=5), rng.normal(size=5))


def test_the_state_of_streams_without_a_bit_generator_survives_a_checkpoint(tmp_path):
    """States are tuples there, with an array in one of them."""
    legacy, python, philox = np.random.RandomState(3), random.Random(3), np.random.Philox(3)
    states = {"legacy": legacy.get_state(), "python": python.getstate(), "philox": philox.state}

    CheckpointFolder(tmp_path).save_latest({"envs": [{"copy": states}]}, Replay(SPEC, 10))
    saved = CheckpointFolder(tmp_path).load_latest(device=torch.device("cpu"))["envs"][0]["copy"]

    twins = np.random.RandomState(4), random.Random(4), np.random.Philox(4)
    twins[0].set_state(saved["legacy"])
    twins[1].setstate(saved["python"])
    twins[2].state = saved["philox"]
    assert twins[0].normal() == legacy.normal()
    assert twins[1].random() == python.random()
    assert twins[2].random_raw() == philox.random_raw()


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), np.array(["2020"], "M8[Y]")])
def test_arrays_that_are_no_numbers_are_named(tmp_path, value):
    with pytest.raises(UserError, match=r"envs/0/copy holds a ndarray\. A checkpoint takes"):
        CheckpointFolder(tmp_path).save_latest({"envs": [{"copy": value}]}, Replay(SPEC, 10))


def test_what_a_checkpoint_cannot_hold_is_named_before_anything_is_written(tmp_path):
    state = {"collector": {"envs": [{"copy": object()}]}}

    with pytest.raises(UserError, match="collector/envs/0/copy holds a object"):
        CheckpointFolder(tmp_path).save_latest(state, Replay(SPEC, 10))

    assert not (tmp_path / "latest.pt").exists()


@pytest.mark.parametrize(
    ("steps", "settings", "num_envs", "learns", "refused"),
    [
        (50, {"seed_steps": 100}, 1, True, True),
        (100, {"seed_steps": 100}, 1, True, False),
        (99, {"seed_steps": 100}, 4, True, False),
        (50, {"seed_steps": 100}, 1, False, False),
        (50, {"seed_steps": 100, "updates_per_step": 0.0}, 1, True, False),
        (50, {"seed_steps": 10, "updates_per_step": 0.01}, 1, True, True),
    ],
)
def test_a_run_that_ends_before_its_first_update_is_refused(
    steps, settings, num_envs, learns, refused
):
    config = TrainConfig(steps=steps, seed=0, **settings)
    outcome = pytest.raises(UserError) if refused else nullcontext()

    with outcome:
        check_steps(config, num_envs=num_envs, learns=learns)


def play(replay, length):
    obs = {"state": np.zeros(3, np.float32)}
    replay.begin(0, obs)
    for t in range(length):
        replay.add(0, np.zeros(2), 0.0, obs, terminated=False, done=t + 1 == length)


def test_the_reason_for_no_update_names_what_to_change():
    heldout = Replay(SPEC, 1000, heldout_fraction=0.999, seed=1)
    short = Replay(SPEC, 1000)
    play(heldout, 8)
    play(short, 2)

    assert "all 1 episodes are held out (heldout_fraction=0.999)" in why_no_update(heldout, 3)
    assert "takes 3 transitions in a row" in why_no_update(short, 3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("capacity", [12, 24, 40])
def test_held_out_episodes_never_push_out_the_last_one_to_train_on(seed, fraction, capacity):
    replay = Replay(SPEC, capacity, heldout_fraction=fraction, seed=seed)
    while not replay.can_sample(3):
        play(replay, 8)
        assert replay.num_episodes < 50

    for _ in range(300):
        obs = {"state": np.zeros(3, np.float32)}
        replay.begin(0, obs)
        for t in range(8):
            replay.add(0, np.zeros(2), 0.0, obs, terminated=False, done=t == 7)
            assert replay.can_sample(3)


def test_a_clock_does_not_move_when_it_is_asked():
    clock = Every(10)

    assert [clock.due(12), clock.due(12)] == [True, True]
    clock.advance(12)
    assert [clock.due(19), clock.due(20)] == [False, True]


def test_disk_space_is_taken_at_once_and_its_lack_named_in_bytes(tmp_path, monkeypatch):
    asked = []

    def full(descriptor, offset, length):
        asked.append(length)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"takes 8,000 bytes, and [\d,]+ are free"):
        allocate((10, 100), np.float64, tmp_path)
    assert asked == [8000]


@pytest.mark.parametrize("place", ["metrics.jsonl", "checkpoints", "checkpoints/replay"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_out_of_a_run_folder_is_refused(tmp_path, place, exists):
    outside, run = tmp_path / "outside", tmp_path / "run"
    path = run / place
    path.parent.mkdir(parents=True)
    if exists:
        outside.mkdir()
    path.symlink_to(outside)

    with pytest.raises(UserError, match=re.escape(f"{path} is a link to {outside}")):
        check_inside(run)


def test_a_pipe_in_a_run_folder_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    os.mkfifo(tmp_path / "checkpoints" / "latest.pt")

    with pytest.raises(UserError, match=r"latest\.pt is a pipe or a device; remove it"):
        check_inside(tmp_path)


def test_links_within_a_run_folder_and_to_it_are_allowed(tmp_path):
    run = tmp_path / "run"
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / "latest").symlink_to("run-1")
    (tmp_path / "alias").symlink_to(run)

    check_inside(run)
    check_inside(tmp_path / "alias")


def test_a_checkpoint_that_names_a_file_elsewhere_is_refused(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    replay = Replay(SPEC, 10)
    play(replay, 4)
    folder.save_latest({}, replay)
    saved = folder.load_latest(device=torch.device("cpu"))
    saved["pieces"][0]["name"] = "../../other.pt"

    with pytest.raises(UserError, match="as a part of the replay"):
        folder.read_replay(saved, Replay(SPEC, 10))


def test_changed_spaces_say_what_there_was_and_what_there_is(tmp_path):
    saved = {"shapes": shapes_of_spec(SPEC)}
    now = EnvSpec(obs={"state": (4,)}, action=Continuous(dim=2), episode_length=8)

    check_shapes(saved, SPEC, tmp_path)
    with pytest.raises(UserError, match="it had 3 observations, now has 4"):
        check_shapes(saved, now, tmp_path)


def test_weights_that_are_not_finite_are_named(tmp_path):
    state = {"model": {"bias": torch.tensor([1.0, torch.nan]), "steps": torch.tensor(3)}}

    with pytest.raises(UserError, match="not finite, in agent/model/bias"):
        check_weights(state, tmp_path / "latest.pt")


def test_a_row_that_cannot_be_written_does_not_hide_the_results(tmp_path, capsys):
    append_row(tmp_path, {"a": 1.0})

    assert "cannot be written" in capsys.readouterr().err


def test_a_finished_run_of_several_environments_may_be_beyond_its_steps(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save_latest({"step": 152, "finished": True}, Replay(SPEC, 10, num_envs=4))
    load = partial(folder.load_for_resume, device=torch.device("cpu"))

    assert load(steps=150)["step"] == 152
    with pytest.raises(UserError, match="give steps above 152"):
        load(steps=100)
