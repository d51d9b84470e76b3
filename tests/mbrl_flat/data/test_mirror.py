"""A replay that is mirrored on a device gives the batches of one that is not."""

import numpy as np
import pytest
import torch

from mbrl_flat.data import mirror
from mbrl_flat.data.mirror import DeviceMirror, wants_mirror
from mbrl_flat.data.replay import Replay

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DEVICES = [
    CPU,
    pytest.param(
        CUDA,
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ],
    ),
]


def add_episodes(replays, rng, num, environments=2):
    for _ in range(num):
        for env_index in range(environments):
            first = {"state": rng.normal(size=3)}
            steps = [
                (rng.uniform(-1, 1, 2), float(rng.normal()), {"state": rng.normal(size=3)})
                for _ in range(7)
            ]
            for replay in replays:
                replay.begin(env_index, first)
                for i, (action, reward, obs) in enumerate(steps):
                    end = i == len(steps) - 1
                    replay.add(env_index, action, reward, obs, terminated=end, done=end)


def both(spec, device, capacity=60):
    plain, mirrored = (Replay(spec, capacity, num_envs=2) for _ in range(2))
    mirrored.mirror = DeviceMirror(mirrored.arrays, device)
    return plain, mirrored


def assert_same_batches(plain, mirrored, seed=0):
    ours, theirs = (
        replay.sample(16, 3, rng=np.random.default_rng(seed)) for replay in (plain, mirrored)
    )
    for name in ("action", "reward", "terminated", "is_first"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name).cpu())
    assert torch.equal(ours.obs["state"], theirs.obs["state"].cpu())


@pytest.mark.parametrize("device", DEVICES)
def test_batches_are_those_of_the_host_while_the_ring_fills_and_wraps(spec, device):
    plain, mirrored = both(spec, device)
    rng = np.random.default_rng(0)

    for seed in range(12):
        add_episodes([plain, mirrored], rng, 1)
        assert_same_batches(plain, mirrored, seed)

    assert plain.write_pos.max() > plain.slots_per_env


@pytest.mark.parametrize("device", DEVICES)
def test_an_episode_that_goes_on_between_two_batches_is_followed(spec, device):
    plain, mirrored = both(spec, device)
    plain.complete_only = mirrored.complete_only = False
    rng = np.random.default_rng(0)
    add_episodes([plain, mirrored], rng, 1)
    for replay in (plain, mirrored):
        replay.begin(0, {"state": np.ones(3)})
    for step in range(9):
        action, obs = rng.uniform(-1, 1, 2), {"state": rng.normal(size=3)}
        for replay in (plain, mirrored):
            replay.add(0, action, 1.0, obs, terminated=False, done=False)
        assert_same_batches(plain, mirrored, step)


def test_a_restored_replay_is_mirrored_anew(spec):
    saved, _ = both(spec, CPU)
    add_episodes([saved], np.random.default_rng(1), 3)
    plain, mirrored = both(spec, CPU)
    add_episodes([plain, mirrored], np.random.default_rng(2), 3)
    assert_same_batches(plain, mirrored)

    for replay in (plain, mirrored):
        replay.write_back(saved.slots_since(np.zeros(2, np.int64)))
        replay.load_state_dict(saved.state_dict())

    assert_same_batches(saved, mirrored)


def test_it_is_made_where_it_is_asked_for_or_fits(monkeypatch):
    monkeypatch.setattr(mirror, "free_memory", lambda device: 250)

    assert wants_mirror("auto", 100, CUDA)
    assert not wants_mirror("auto", 101, CUDA)
    assert not wants_mirror("auto", 1, CPU)
    assert wants_mirror("always", 10**15, CPU)
    assert not wants_mirror("never", 1, CUDA)
