"""Who writes to what: one process at a time."""

import errno
import fcntl
import os

import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.runs import folder as run_folder
from mbrl_flat.runs.folder import create_run_folder, writing
from mbrl_flat.runtime.file_lock import take_lock


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path):
    first = take_lock(tmp_path / "lock", patience=0.0)
    with pytest.raises(BlockingIOError):
        take_lock(tmp_path / "lock", patience=0.0)

    os.close(first)

    os.close(take_lock(tmp_path / "lock", patience=0.0))


def test_a_folder_that_another_process_writes_to_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.0)
    (tmp_path / "config.yaml").write_text("seed: 1\n")

    with (
        writing(tmp_path, new=False),
        pytest.raises(UserError, match=f"Another process is writing to {tmp_path}; wait"),
        writing(tmp_path, new=True),
    ):
        pass

    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"
    with writing(tmp_path, new=False):
        pass


def test_a_new_folder_is_removed_when_its_run_did_not_begin(tmp_path):
    folder = create_run_folder(tmp_path / "run", exact=True)

    with pytest.raises(UserError), writing(folder, new=True):
        raise UserError("a wrong word")

    assert list(tmp_path.iterdir()) == []


def test_without_locks_nothing_is_refused(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)

    with writing(tmp_path, new=False), writing(tmp_path, new=False):
        pass


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"), writing(tmp_path / "none", new=False):
        pass
