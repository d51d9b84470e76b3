"""Replay: subsequences are whole and equally likely, and nothing is lost by saving."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mbrl_flat.data import replay as replay_module
from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.runtime.seeding import rng_state
from mbrl_flat.specs import Continuous, EnvSpec
from tests.mbrl_flat.data.recorder import SPEC, Recorder, obs_at, starts


def assert_subsequences_are_whole(batch, length):
    """All observations, actions and rewards of a subsequence belong together, in order."""
    obs = batch.obs["state"]
    time = obs[:, :1, 2] + torch.arange(length + 1)
    episode = obs[:, :1, 1].expand(-1, length + 1)
    assert torch.equal(obs[..., 0], obs[:, :1, 0].expand(-1, length + 1))
    assert torch.equal(obs[..., 1], episode)
    assert torch.equal(obs[..., 2], time)
    assert torch.equal(batch.action[..., 0], episode[:, :-1])
    assert torch.equal(batch.action[..., 1], time[:, :-1])
    assert torch.equal(batch.reward, 100.0 * episode[:, :-1] + time[:, :-1])
    assert (batch.terminated[:, :-1] == 0).all()


events = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 12), st.booleans(), st.booleans()),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150)
@given(
    events=events,
    capacity=st.integers(1, 60),
    length=st.integers(1, 6),
    complete_only=st.booleans(),
    heldout_fraction=st.sampled_from([0.0, 0.5]),
)
def test_a_subsequence_never_crosses_an_episode_or_the_write_head(
    events, capacity, length, **options
):
    environments, complete_only = 3, options["complete_only"]
    replay = Replay(SPEC, capacity, num_envs=environments, **options)
    recorder = Recorder(replay)
    is_open = [False] * environments
    for env_index, steps, terminated, done in events:
        if not is_open[env_index]:
            recorder.begin(env_index)
        for step in range(steps):
            last = done and step == steps - 1
            recorder.step(env_index, terminated=terminated and last, done=last)
        is_open[env_index] = not done

    for heldout in (False, True):
        if not replay.can_sample(length, heldout=heldout):
            continue
        rng = np.random.default_rng(0)
        batch = replay.sample(32, length, rng=rng, heldout=heldout)
        assert_subsequences_are_whole(batch, length)
        for env_index, episode, _ in starts(batch):
            assert recorder.heldout[env_index, episode] == heldout
            newest = is_open[env_index] and episode == recorder.episode[env_index]
            assert not (complete_only and newest)


@settings(max_examples=60)
@given(events=events, capacity=st.integers(1, 60), length=st.integers(1, 6))
def test_exactly_the_subsequences_that_are_stored_whole_can_be_sampled(events, capacity, length):
    replay = Replay(SPEC, capacity)
    recorder = Recorder(replay)
    stored = []
    for _, steps, _, _ in events:
        recorder.play(0, steps)
        stored += [(recorder.episode[0], t) for t in range(steps + 1)]
    kept = set(stored[-replay.slots_per_env :])
    whole = {(0, e, t) for e, t in kept if all((e, t + i) in kept for i in range(length + 1))}

    assert replay.can_sample(length) == bool(whole)
    if whole:
        batch = replay.sample(64, length, rng=np.random.default_rng(0))
        assert set(starts(batch)) <= whole


@pytest.mark.parametrize("capacity", [200, 40])
def test_all_subsequences_are_as_likely_before_and_after_the_ring_is_full(capacity):
    replay = Replay(SPEC, capacity, num_envs=2)
    recorder = Recorder(replay)
    for episode in range(8):
        recorder.play(0, 3 + episode % 4)
        recorder.play(1, 8)

    batch = replay.sample(20_000, 2, rng=np.random.default_rng(0))

    counts = Counter(starts(batch))
    assert chisquare(list(counts.values())).pvalue > 1e-3
    if capacity == 200:
        whole = sum(max(3 + e % 4 - 1, 0) + 7 for e in range(8))
        assert len(counts) == whole


def test_heldout_episodes_are_the_named_share_of_all():
    replay = Replay(SPEC, 10_000, heldout_fraction=0.2, seed=0)
    recorder = Recorder(replay)

    for _ in range(1000):
        recorder.play(0, 1)

    assert replay.num_episodes == 1000
    # Binomial: the standard deviation is 12.6.
    assert abs(replay.num_heldout - 200) < 50
    assert replay.num_heldout == sum(recorder.heldout.values())


def test_which_episodes_are_held_out_follows_from_the_seed_alone():
    def heldout(seed):
        replay = Replay(SPEC, 1000, heldout_fraction=0.5, seed=seed)
        recorder = Recorder(replay)
        for _ in range(30):
            recorder.play(0, 2)
            if replay.can_sample(1):
                replay.sample(4, 1, rng=np.random.default_rng())
        return list(recorder.heldout.values())

    assert heldout(0) == heldout(0)
    # Binomial: of 30 fair draws 15 are equal, with a standard deviation of 2.7.
    assert 4 < sum(a == b for a, b in zip(heldout(0), heldout(1), strict=True)) < 26


def test_without_a_share_no_episode_is_held_out():
    replay = Replay(SPEC, 100)
    Recorder(replay).play(0, 5)

    assert replay.num_heldout == 0
    assert replay.can_sample(1)
    assert not replay.can_sample(1, heldout=True)


def test_an_open_episode_is_sampled_only_where_incomplete_ones_are_allowed():
    for complete_only in (True, False):
        replay = Replay(SPEC, 100, complete_only=complete_only)
        recorder = Recorder(replay)
        recorder.begin(0)
        for _ in range(5):
            recorder.step(0)

        assert replay.can_sample(3) == (not complete_only)
        recorder.step(0, done=True)
        assert replay.can_sample(3)
        assert replay.can_sample(6)
        assert not replay.can_sample(7)


def test_a_termination_is_told_apart_from_a_truncation():
    replay = Replay(SPEC, 100)
    recorder = Recorder(replay)
    recorder.play(0, 4, terminated=True)
    recorder.play(0, 4)

    batch = replay.sample(200, 2, rng=np.random.default_rng(0))

    ends = {start: row.tolist() for start, row in zip(starts(batch), batch.terminated, strict=True)}
    assert ends[0, 0, 2] == [0.0, 1.0]
    assert ends[0, 1, 2] == [0.0, 0.0]
    assert all(row == [0.0, 0.0] for start, row in ends.items() if start != (0, 0, 2))


def test_old_episodes_give_way_to_new_ones():
    replay = Replay(SPEC, 16)
    recorder = Recorder(replay)
    for _ in range(10):
        recorder.play(0, 8)

    batch = replay.sample(500, 3, rng=np.random.default_rng(0))

    assert len(replay) == replay.slots_per_env
    assert {episode for _, episode, _ in starts(batch)} == {8, 9}


def test_the_capacity_holds_that_many_transitions_of_episodes_of_full_length():
    replay = Replay(SPEC, 80)
    recorder = Recorder(replay)
    for _ in range(30):
        recorder.play(0, 8)

    batch = replay.sample(5000, 1, rng=np.random.default_rng(0))

    assert len(set(starts(batch))) >= 80


def test_an_episode_longer_than_the_ring_breaks_nothing():
    replay = Replay(SPEC, 10)
    recorder = Recorder(replay)
    recorder.play(0, 50)

    batch = replay.sample(100, 3, rng=np.random.default_rng(0))

    assert_subsequences_are_whole(batch, 3)
    assert min(start[2] for start in starts(batch)) == 51 - replay.slots_per_env
    assert max(start[2] for start in starts(batch)) == 47


def test_a_batch_has_its_shapes_and_types():
    spec = EnvSpec(
        obs={"rgb": (9, 4, 4), "state": (3,)},
        action=Continuous(dim=2),
        episode_length=5,
        images=frozenset({"rgb"}),
    )
    replay = Replay(spec, 50)
    obs = {"rgb": np.full((9, 4, 4), 200, np.uint8), "state": np.ones(3, np.float64)}
    replay.begin(0, obs)
    for step in range(5):
        replay.add(0, np.zeros(2), 1.0, obs, terminated=False, done=step == 4)

    batch = replay.sample(7, 3, rng=np.random.default_rng(0))

    assert batch.obs["rgb"].shape == (7, 4, 9, 4, 4)
    assert batch.obs["rgb"].dtype == torch.uint8
    assert (batch.obs["rgb"] == 200).all()
    assert batch.obs["state"].dtype == batch.action.dtype == torch.float32
    assert batch.action.shape == (7, 3, 2)
    assert batch.reward.shape == batch.terminated.shape == (7, 3)
    assert batch.reward.dtype == batch.terminated.dtype == torch.float32


def test_a_batch_is_a_copy():
    replay = Replay(SPEC, 50)
    Recorder(replay).play(0, 5)
    before = replay.arrays["obs/state"].copy()

    batch = replay.sample(4, 2, rng=np.random.default_rng(0))
    batch.obs["state"].zero_()

    assert np.array_equal(replay.arrays["obs/state"], before)


def test_a_draw_follows_from_its_generator_and_moves_no_other():
    replay = Replay(SPEC, 50)
    Recorder(replay).play(0, 8)
    before = rng_state()
    own = replay.state_dict()["rng"]

    first = replay.sample(16, 2, rng=np.random.default_rng(3))
    second = replay.sample(16, 2, rng=np.random.default_rng(3))

    assert torch.equal(first.obs["state"], second.obs["state"])
    after = rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert replay.state_dict()["rng"] == own


@settings(max_examples=60)
@given(
    bursts=st.lists(
        st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9), st.booleans()), max_size=5),
        min_size=1,
        max_size=6,
    ),
    capacity=st.integers(2, 40),
)
def test_a_replay_put_back_from_pieces_goes_on_exactly(bursts, capacity):
    replay = Replay(SPEC, capacity, num_envs=2, heldout_fraction=0.3)
    recorder = Recorder(replay)
    is_open, pieces, position = [False, False], [], np.zeros(2, np.int64)
    for burst in bursts:
        for env_index, steps, done in burst:
            if not is_open[env_index]:
                recorder.begin(env_index)
            for step in range(steps):
                recorder.step(env_index, done=done and step == steps - 1)
            is_open[env_index] = not done
        pieces.append(replay.slots_since(position))
        position = replay.write_pos.copy()

    other = Replay(SPEC, capacity, num_envs=2, heldout_fraction=0.3, seed=99)
    other.load_state_dict(replay.state_dict())
    for piece in pieces:
        other.write_back(piece)

    assert other.state_dict() == replay.state_dict()
    for name, array in replay.arrays.items():
        assert np.array_equal(array, other.arrays[name]), name
    for each in (replay, other):
        each.begin(0, obs_at(0, 0, 0))
    assert other.state_dict() == replay.state_dict()
    for heldout in (False, True):
        if replay.can_sample(2, heldout=heldout):
            a = replay.sample(8, 2, rng=np.random.default_rng(0), heldout=heldout)
            b = other.sample(8, 2, rng=np.random.default_rng(0), heldout=heldout)
            assert torch.equal(a.obs["state"], b.obs["state"])
            assert torch.equal(a.reward, b.reward)


def test_a_piece_holds_what_was_written_since_and_no_more_than_the_ring():
    replay = Replay(SPEC, 20)
    recorder = Recorder(replay)
    recorder.play(0, 8)
    position = replay.write_pos.copy()
    recorder.play(0, 4)

    assert replay.slots_since(position)["0/reward"].shape == (5 + 1,)
    recorder.play(0, 100)
    assert replay.slots_since(position)["0/reward"].shape == (replay.slots_per_env,)


def test_a_saved_replay_of_another_shape_is_refused():
    saved = Replay(SPEC, 50, num_envs=2).state_dict()

    with pytest.raises(UserError, match="has 2 x 30 slots, this run has 1 x 24; resume"):
        Replay(SPEC, 20).load_state_dict(saved)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0])
def test_a_share_of_heldout_episodes_out_of_range_is_refused(fraction):
    with pytest.raises(UserError, match=rf"must lie in \[0, 1\), got {fraction}"):
        Replay(SPEC, 50, heldout_fraction=fraction)


@pytest.mark.parametrize("capacity", [0, -5])
def test_a_capacity_below_one_is_refused(capacity):
    with pytest.raises(UserError, match=f"capacity must be at least 1, got {capacity}"):
        Replay(SPEC, capacity)


@pytest.mark.parametrize(("heldout", "kind"), [(False, "training"), (True, "held-out")])
def test_sampling_from_too_little_says_what_is_missing(heldout, kind):
    empty = Replay(SPEC, 50)
    short = Replay(SPEC, 50)
    Recorder(short).play(0, 2)

    for replay in (empty, short):
        with pytest.raises(UserError, match=f"No {kind} episode in the replay has 3 transitions"):
            replay.sample(4, 3, rng=np.random.default_rng(0), heldout=heldout)


def test_the_size_in_bytes_is_that_of_all_arrays():
    replay = Replay(SPEC, 72, num_envs=2)

    # State 3 and action 2 and reward 1 in float32, two bytes and one int64, in each slot.
    assert replay.nbytes == 2 * replay.slots_per_env * (4 * 6 + 2 + 8)


def test_a_replay_without_a_subsequence_searches_only_what_is_new(monkeypatch):
    player, searched = Recorder(Replay(SPEC, 500, complete_only=False)), []
    look = replay_module.any_subsequence

    def noted(episode, *args, **kind):
        searched.append(len(episode))
        return look(episode, *args, **kind)

    monkeypatch.setattr(replay_module, "any_subsequence", noted)
    for _ in range(100):
        player.play(0, 2)
        assert not player.replay.can_sample(3)
    player.begin(0)
    found = []
    for _ in range(4):
        player.step(0)
        found.append(player.replay.can_sample(3))

    assert found == [False, False, True, True]
    assert max(searched[:100]) <= 6
