"""Checkpoints: whole or absent at every moment, complete, and never executed."""

import pickle
import zipfile
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import numpy as np
import pytest
import torch

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import save_atomically
from mbrl_flat.runtime.seeding import rng_state
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.training import checkpoint
from mbrl_flat.training.checkpoint import FORMAT, CheckpointFolder, load_safely

SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=8)
CPU = torch.device("cpu")


class KilledError(Exception):
    """Stands for the process being killed."""


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_replay():
    return Replay(SPEC, 40, num_envs=2, heldout_fraction=0.2)


def play(replay, rng, *, episodes=1, length=5):
    for _ in range(episodes):
        for env_index in range(2):
            replay.begin(env_index, {"state": rng.normal(size=3)})
            for step in range(length):
                replay.add(
                    env_index,
                    rng.normal(size=2),
                    rng.normal(),
                    {"state": rng.normal(size=3)},
                    terminated=False,
                    done=step == length - 1,
                )


def assert_same(replay, other):
    assert replay.state_dict() == other.state_dict()
    for name, array in replay.arrays.items():
        assert np.array_equal(array, other.arrays[name]), name


def restored(path):
    folder, replay = CheckpointFolder(path), make_replay()
    state = folder.load_latest(device=CPU)
    folder.restore_replay(state, replay)
    return folder, replay, state


def pieces(path):
    return sorted(file.name for file in (path / "replay").iterdir())


def test_what_was_saved_comes_back(tmp_path):
    value = {
        "format": FORMAT,
        "weights": {"w": torch.randn(3, 2)},
        "rng": rng_state(),
        "generator": np.random.default_rng(0).bit_generator.state,
        "step": 12,
        "name": "walker",
    }

    save_atomically(value, tmp_path / "deep" / "file.pt")
    back = load_safely(tmp_path / "deep" / "file.pt")

    assert torch.equal(back["weights"]["w"], value["weights"]["w"])
    assert back["generator"] == value["generator"]
    assert torch.equal(back["rng"]["torch"], value["rng"]["torch"])
    assert (back["step"], back["name"]) == (12, "walker")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["file.pt"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no checkpoint at .*absent.pt; check the path"):
        load_safely(tmp_path / "absent.pt")


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="There is no checkpoint at"):
        load_safely(tmp_path)


def test_a_changed_bit_of_a_weight_is_refused(tmp_path):
    """It would be evaluated as if it had been learned; torch reads over it."""
    path, weights = tmp_path / "file.pt", torch.linspace(1.0, 2.0, 1000)
    save_atomically({"format": FORMAT, "step": 1, "weights": weights}, path)
    content = path.read_bytes()
    begin = content.index(weights.numpy().tobytes())

    for at in range(begin, begin + weights.nbytes, 400):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match="truncated, corrupt or no checkpoint"):
            load_safely(path)

    path.write_bytes(content)
    assert torch.equal(load_safely(path)["weights"], weights)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "file.pt"
    save_atomically({"format": FORMAT, "w": torch.randn(500)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(UserError, match=r"file.pt is truncated, corrupt or no checkpoint"):
        load_safely(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_never_escape_as_another_error(tmp_path):
    path = tmp_path / "file.pt"
    save_atomically({"format": FORMAT, "w": torch.randn(20), "words": ["a", {"b": 1}]}, path)
    content = path.read_bytes()
    begin = content.index(b"data.pkl")
    rng = np.random.default_rng(0)

    for trial in range(400):
        damaged = bytearray(content)
        inside_pickle = (begin + 8, begin + 300) if trial % 2 else (0, len(content))
        for place in rng.integers(*inside_pickle, size=3):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            load_safely(path)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017 - a damaged tensor may still load


def test_an_object_that_would_run_code_is_refused_and_nothing_runs(tmp_path):
    path, victim = tmp_path / "file.pt", tmp_path / "victim"
    torch.save({"format": FORMAT, "agent": Malice(victim)}, path)

    with pytest.raises(UserError, match=r"Refused the checkpoint .*would execute"):
        load_safely(path)

    assert not victim.exists()


def test_a_plain_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path):
    path, victim = tmp_path / "file.pt", tmp_path / "victim"
    path.write_bytes(pickle.dumps({"format": FORMAT, "agent": Malice(victim)}))

    with pytest.raises(UserError, match="no checkpoint at all"):
        load_safely(path)

    assert not victim.exists()


@pytest.mark.parametrize(
    "content", [b"hello, this is a text file", b"\x89PNG\r\n\x1a\n" + bytes(50)]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "file.pt"
    path.write_bytes(content)

    with pytest.raises(UserError, match=str(path)):
        load_safely(path)


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    save_atomically({"format": FORMAT, "w": torch.zeros(1000)}, tmp_path / "plain.pt")
    path = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))

    assert load_safely(tmp_path / "plain.pt")["format"] == FORMAT
    with pytest.raises(UserError, match="no checkpoint at all"):
        load_safely(path)


@pytest.mark.parametrize("value", [{"w": torch.ones(1)}, {"format": FORMAT + 1}, [1, 2]])
def test_a_checkpoint_of_another_program_or_version_is_refused(tmp_path, value):
    path = tmp_path / "file.pt"
    torch.save(value, path)

    with pytest.raises(UserError, match="is not a checkpoint of this version of mbrl_flat"):
        load_safely(path)


def test_a_write_that_fails_half_way_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "file.pt"
    save_atomically({"format": FORMAT, "step": 1}, path)
    before = path.read_bytes()

    def half(value, file):
        file.write(b"half of it")
        raise KilledError

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KilledError):
        save_atomically({"format": FORMAT, "step": 2}, path)

    assert path.read_bytes() == before
    monkeypatch.undo()
    save_atomically({"format": FORMAT, "step": 3}, path)
    assert load_safely(path)["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_named_keeps_the_old_file_and_gets_its_room_back(tmp_path):
    path = tmp_path / "latest.pt"
    save_atomically({"format": FORMAT, "weights": torch.zeros(3)}, path)
    before = path.read_bytes()
    temporary = tmp_path / "latest.pt.tmp"
    temporary.symlink_to("/dev/full")

    with pytest.raises(OSError, match=r"No space left on device: .*latest\.pt"):
        save_atomically({"format": FORMAT, "weights": torch.zeros(300_000)}, path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_replay_comes_back_from_its_pieces(tmp_path, rng):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    for step in range(3):
        play(replay, rng)
        folder.save_latest({"step": step}, replay)

    _, other, state = restored(tmp_path)

    assert state["step"] == 2
    assert pieces(tmp_path) == ["000000.pt", "000001.pt", "000002.pt"]
    assert_same(replay, other)


def test_a_checkpoint_in_the_middle_of_an_episode_loses_no_action(tmp_path, rng):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    replay.begin(0, {"state": rng.normal(size=3)})
    for step in range(5):
        folder.save_latest({}, replay)
        replay.add(
            0,
            rng.normal(size=2),
            rng.normal(),
            {"state": rng.normal(size=3)},
            terminated=step == 4,
            done=step == 4,
        )
    folder.save_latest({}, replay)

    assert_same(replay, restored(tmp_path)[1])


def test_pieces_that_are_overwritten_in_the_ring_are_deleted(tmp_path, rng):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    most = 0
    for step in range(20):
        play(replay, rng)
        folder.save_latest({"step": step}, replay)
        most = max(most, len(pieces(tmp_path)))
        assert_same(replay, restored(tmp_path)[1])

    # A env_index has 24 slots, a round writes 6 of them.
    assert replay.slots_per_env == 24
    assert most <= 24 // 6 + 1
    assert pieces(tmp_path)[-1] == "000019.pt"


def test_a_piece_larger_than_the_ring_comes_back(tmp_path, rng):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    play(replay, rng)
    folder.save_latest({}, replay)
    play(replay, rng, episodes=15)
    folder.save_latest({}, replay)

    assert pieces(tmp_path) == ["000001.pt"]
    assert_same(replay, restored(tmp_path)[1])


def test_a_restored_folder_goes_on_with_its_pieces(tmp_path, rng):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    play(replay, rng, episodes=2)
    folder.save_latest({}, replay)

    folder, replay, _ = restored(tmp_path)
    play(replay, rng)
    folder.save_latest({}, replay)

    assert pieces(tmp_path) == ["000000.pt", "000001.pt"]
    # One episode of 6 slots and the slot before it.
    arrays = load_safely(tmp_path / "replay" / "000001.pt")["arrays"]
    assert arrays["0/reward"].shape == (7,)
    assert_same(replay, restored(tmp_path)[1])


def test_a_checkpoint_without_new_steps_writes_no_piece(tmp_path, rng):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    folder.save_latest({"step": 0}, replay)
    play(replay, rng)
    folder.save_latest({"step": 1}, replay)
    folder.save_latest({"step": 2}, replay)

    assert pieces(tmp_path) == ["000000.pt"]
    _, other, state = restored(tmp_path)
    assert state["step"] == 2
    assert_same(replay, other)


@pytest.mark.parametrize("episodes", [1, 10])
def test_a_kill_between_piece_and_checkpoint_leaves_the_older_checkpoint_whole(
    tmp_path, rng, monkeypatch, episodes
):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    play(replay, rng, episodes=3)
    folder.save_latest({"step": 1}, replay)
    saved = restored(tmp_path)[1]

    def kill_at_checkpoint(value, path):
        if path.name == "latest.pt":
            raise KilledError
        save_atomically(value, path)

    play(replay, rng, episodes=episodes)
    monkeypatch.setattr(checkpoint, "save_atomically", kill_at_checkpoint)
    with pytest.raises(KilledError):
        folder.save_latest({"step": 2}, replay)
    monkeypatch.undo()
    assert pieces(tmp_path) == ["000000.pt", "000001.pt"]

    folder, other, state = restored(tmp_path)
    assert state["step"] == 1
    assert_same(saved, other)
    assert pieces(tmp_path) == ["000000.pt"]
    play(other, rng)
    folder.save_latest({"step": 2}, other)
    assert_same(other, restored(tmp_path)[1])


def test_a_process_that_survives_a_failed_checkpoint_saves_everything_the_next_time(
    tmp_path, rng, monkeypatch
):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    play(replay, rng)
    folder.save_latest({}, replay)
    play(replay, rng)

    def full_disk(value, path):
        if path.name == "latest.pt":
            raise OSError("no space left")
        save_atomically(value, path)

    monkeypatch.setattr(checkpoint, "save_atomically", full_disk)
    with pytest.raises(OSError, match="no space"):
        folder.save_latest({}, replay)
    monkeypatch.undo()
    play(replay, rng)
    folder.save_latest({}, replay)

    assert_same(replay, restored(tmp_path)[1])


def test_a_replay_of_other_settings_is_refused_and_deletes_nothing(tmp_path, rng):
    folder, replay = CheckpointFolder(tmp_path), make_replay()
    play(replay, rng)
    folder.save_latest({}, replay)
    other = CheckpointFolder(tmp_path)

    with pytest.raises(UserError, match="resume with the same settings"):
        other.restore_replay(other.load_latest(device=CPU), Replay(SPEC, 7))

    assert pieces(tmp_path) == ["000000.pt"]


def test_the_agent_goes_to_the_device_and_a_simulator_stays_on_the_cpu(tmp_path):
    """``meta`` stands for a GPU, whose tensors a simulator cannot read either."""
    envs = [{"start": {}, "actions": torch.ones(3, 2)}]
    folder = CheckpointFolder(tmp_path)
    folder.save_latest(
        {"agent": {"w": torch.ones(2)}, "step": 5, "collector": {"envs": envs}}, make_replay()
    )

    state = folder.load_for_resume(steps=9, device=torch.device("meta"))

    assert state is not None
    assert state["agent"]["w"].device.type == "meta"
    assert state["collector"]["envs"][0]["actions"].numpy().sum() == 6.0


def test_the_best_checkpoint_holds_the_agent_and_its_score(tmp_path):
    folder = CheckpointFolder(tmp_path)

    folder.save_best({"w": torch.ones(2)}, step=7, score=12.5)

    best = load_safely(folder.best)
    assert torch.equal(best["agent"]["w"], torch.ones(2))
    assert (best["step"], best["score"]) == (7, 12.5)


def test_a_disk_that_is_full_at_any_byte_of_a_checkpoint_is_named_and_the_last_one_is_whole(
    tmp_path,
):
    """torch's writer then ends in an error of its own, whose cause is the disk's."""
    path = tmp_path / "latest.pt"
    save_atomically({"format": FORMAT, "step": 1}, path)
    value = {"format": FORMAT, "w": [torch.randn(40, 40) for _ in range(3)], "step": 2}
    save_atomically(value, tmp_path / "whole.pt")
    size, (soft, hard) = (tmp_path / "whole.pt").stat().st_size, getrlimit(RLIMIT_FSIZE)

    for limit in (*range(100, size - 2000, 1999), *range(size - 2000, size, 97)):
        setrlimit(RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                save_atomically(value, path)
        finally:
            setrlimit(RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(path)
        assert load_safely(path)["step"] == 1
        assert not path.with_name("latest.pt.tmp").exists()
