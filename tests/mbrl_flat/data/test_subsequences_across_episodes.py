"""Subsequences that span several episodes."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from tests.mbrl_flat.data.recorder import SPEC, Recorder, starts


def recorded(*, heldout_fraction=0.0, lengths=(3, 1, 4, 2, 5), terminated=True):
    replay = Replay(SPEC, 40, heldout_fraction=heldout_fraction, complete_only=False, seed=3)
    recorder = Recorder(replay)
    for length in lengths:
        recorder.play(0, length, terminated=terminated)
    return replay, recorder


def test_subsequences_across_episodes_mark_every_first_observation_and_invent_no_transition():
    replay, _ = recorded()
    batch = replay.sample(256, 6, rng=np.random.default_rng(0), across_episodes=True)
    time = batch.obs["state"][..., 2]
    assert torch.equal(batch.is_first, time == 0)
    before_first = batch.is_first[:, 1:]
    assert before_first.any()
    assert not batch.reward[before_first].any()
    assert not batch.action[before_first].any()
    assert not batch.terminated[before_first].any()
    # Every real transition tells the episode and the time of the observation before it.
    episode = batch.obs["state"][:, :-1, 1]
    expected = torch.stack([episode, time[:, :-1]], -1)
    assert torch.equal(batch.action[~before_first], expected[~before_first])


def test_subsequences_across_episodes_start_everywhere_equally_often():
    replay, _ = recorded()
    batch = replay.sample(4000, 6, rng=np.random.default_rng(0), across_episodes=True)
    counts = Counter(starts(batch))
    assert len(counts) == 20 - 6
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_subsequences_across_episodes_hold_one_part_only():
    replay, recorder = recorded(heldout_fraction=0.4, lengths=(3, 1, 4, 2, 5) * 3)
    for heldout in (False, True):
        batch = replay.sample(
            200, 4, rng=np.random.default_rng(0), heldout=heldout, across_episodes=True
        )
        episodes = batch.obs["state"][..., 1].flatten().int().tolist()
        assert {recorder.heldout[0, episode] for episode in episodes} == {heldout}


def test_a_slot_that_ends_an_episode_keeps_nothing_of_the_episode_it_replaced():
    replay = Replay(SPEC, 9, complete_only=False)
    recorder = Recorder(replay)
    for _ in range(7):
        recorder.play(0, 3, terminated=True)
    batch = replay.sample(64, 4, rng=np.random.default_rng(0), across_episodes=True)
    assert not batch.reward[batch.is_first[:, 1:]].any()


def test_asking_for_subsequences_longer_than_all_episodes_together_says_so():
    replay, _ = recorded()
    with pytest.raises(UserError, match="collect more steps"):
        replay.sample(2, 30, rng=np.random.default_rng(0), across_episodes=True)
