"""Images in replay: kept once, stacked when they are drawn, in memory or on the disk."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Continuous, Discrete, EnvSpec
from mbrl_flat.training.checkpoint import CheckpointFolder


def spec_of(stack, *, shape=(2, 3, 3), length=8):
    return EnvSpec(
        obs={"rgb": (stack * shape[0], *shape[1:])},
        action=Continuous(dim=1),
        episode_length=length,
        images=frozenset({"rgb"}),
        frame_stack=stack,
    )


class Player:
    """Plays episodes whose stacked observations are kept aside by what their frames say."""

    def __init__(self, replay, stack):
        self.replay, self.stack = replay, stack
        self.seen = {}
        self.number = 0

    def _obs(self, frames):
        stack = [frames[max(len(frames) - self.stack + i, 0)] for i in range(self.stack)]
        joined = np.concatenate(stack)
        self.seen[self.number] = joined
        return {"rgb": joined}

    def _frame(self):
        self.number += 1
        image = np.zeros((2, 3, 3), np.uint8)
        image[0], image[1] = self.number % 256, self.number // 256
        return image

    def play(self, length, env_index=0):
        frames = [self._frame()]
        self.replay.begin(env_index, self._obs(frames))
        for step in range(length):
            frames.append(self._frame())
            self.replay.add(
                env_index,
                np.zeros(1),
                0.0,
                self._obs(frames),
                terminated=False,
                done=step == length - 1,
            )


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    capacity=st.integers(6, 60),
    stack=st.integers(1, 4),
    across=st.booleans(),
)
def test_a_stack_is_that_of_the_environment_and_never_crosses_an_episode(
    lengths, capacity, stack, across
):
    replay = Replay(spec_of(stack), capacity, num_envs=2)
    player = Player(replay, stack)
    for index, length in enumerate(lengths):
        player.play(length, env_index=index % 2)
    if not replay.can_sample(2, across_episodes=across):
        return

    batch = replay.sample(64, 2, rng=np.random.default_rng(0), across_episodes=across)

    assert batch.obs["rgb"].dtype == torch.uint8
    for image in batch.obs["rgb"].flatten(0, 1).numpy():
        newest = int(image[-2, 0, 0]) + 256 * int(image[-1, 0, 0])
        assert np.array_equal(image, player.seen[newest])


def test_one_episode_that_fills_the_ring_exactly_has_its_start_at_the_start():
    replay = Replay(spec_of(3, length=10), 10)
    player = Player(replay, 3)
    player.play(replay.slots_per_env - 1)

    batch = replay.sample(200, 1, rng=np.random.default_rng(0))

    first = batch.obs["rgb"][:, 0, -2, 0, 0] == 1
    assert first.any()
    assert (batch.obs["rgb"][first, 0, ::2, 0, 0] == 1).all()


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        # DeepMind Control with its stack of three, and Atari-100k.
        (spec_of(3, shape=(3, 64, 64), length=500), 1.05 * 64 * 64 * 3 * 100_000),
        (
            EnvSpec(
                obs={"rgb": (3, 64, 64)},
                action=Discrete(num=18),
                episode_length=27_000,
                images=frozenset({"rgb"}),
            ),
            1.03 * 1.23e9,
        ),
    ],
)
def test_a_hundred_thousand_frames_take_hardly_more_than_their_pixels(spec, limit):
    assert Replay(spec, 100_000).nbytes <= limit


def test_a_replay_on_the_disk_is_a_replay_in_memory(tmp_path):
    replays = [Replay(spec_of(2), 20), Replay(spec_of(2), 20, folder=tmp_path / "replay")]
    for replay in replays:
        player = Player(replay, 2)
        for _ in range(5):
            player.play(7)

    first, second = (r.sample(32, 3, rng=np.random.default_rng(0)) for r in replays)

    assert torch.equal(first.obs["rgb"], second.obs["rgb"])
    assert torch.equal(first.action, second.action)
    # The file has no name: nothing is left behind, whatever happens to the process.
    assert list((tmp_path / "replay").iterdir()) == []


def test_a_checkpoint_of_a_replay_on_the_disk_writes_what_is_new_and_restores_all(tmp_path):
    replay = Replay(spec_of(3, shape=(2, 32, 32)), 200, folder=tmp_path / "a")
    player = Player(replay, 3)
    player._frame = lambda: np.random.default_rng(0).integers(256, size=(2, 32, 32), dtype=np.uint8)
    folder = CheckpointFolder(tmp_path / "checkpoints")
    sizes = []
    for _ in range(3):
        player.play(40)
        folder.save_latest({}, replay)
        files = (tmp_path / "checkpoints").rglob("*.pt")
        sizes.append(sum(file.stat().st_size for file in files))
    assert sizes[2] - sizes[1] < 0.6 * sizes[1]

    other = Replay(spec_of(3, shape=(2, 32, 32)), 200, folder=tmp_path / "b")
    again = CheckpointFolder(tmp_path / "checkpoints")
    again.restore_replay(again.load_latest(device=torch.device("cpu")), other)

    for name, array in replay.arrays.items():
        assert np.array_equal(array, other.arrays[name])


def test_a_folder_that_cannot_be_written_to_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot map the replay from a file in .*replay_storage"):
        Replay(spec_of(1), 20, folder=tmp_path / "file")
