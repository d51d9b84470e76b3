"""Files that are whole at every moment, also after the machine loses its power."""

import errno
import os
from pathlib import Path

import pytest
import torch

from mbrl_flat.runtime import files
from mbrl_flat.runtime.files import save_atomically, write_text_atomically


def save(path):
    save_atomically({"weights": torch.ones(3)}, path)


def text(path):
    write_text_atomically(path, "a: 1")


@pytest.mark.parametrize("write", [save, text])
def test_the_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    tmp_path, monkeypatch, write
):
    """Without the first a name may lead to an empty file, without the second to the old one."""
    path, done, fsync, replace = tmp_path / "file.pt", [], os.fsync, Path.replace

    def synced(descriptor):
        there = os.fstat(descriptor).st_ino
        done.append(
            next(p.name for p in (tmp_path, *tmp_path.iterdir()) if p.stat().st_ino == there)
        )
        fsync(descriptor)

    def renamed(source, target):
        done.append(f"{source.name} to {Path(target).name}")
        return replace(source, target)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write(path)

    assert done == ["file.pt.tmp", "file.pt.tmp to file.pt", tmp_path.name]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folders_is_written_to(tmp_path, monkeypatch, number):
    """Some that are mounted from elsewhere sync files alone."""
    fsync = os.fsync

    def files_only(descriptor):
        if Path(f"/dev/fd/{descriptor}").is_dir():
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", files_only)
    text(tmp_path / "a.yaml")

    assert (tmp_path / "a.yaml").read_text() == "a: 1"


def test_a_folder_that_cannot_be_synced_for_another_reason_is_an_error(tmp_path, monkeypatch):
    fsync = os.fsync

    def broken(descriptor):
        if Path(f"/dev/fd/{descriptor}").is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        text(tmp_path / "a.yaml")
