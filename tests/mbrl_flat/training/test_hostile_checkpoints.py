"""Checkpoints from someone else, a few bytes of which would fill the memory or never end."""

import zipfile

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import save_atomically
from mbrl_flat.training.checkpoint import FORMAT, load_safely


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    save_atomically({"format": FORMAT, "w": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path, "a") as file:
        entry = next(e for e in file.infolist() if e.filename.endswith("data/0"))
        file.filelist += [entry] * 1000
        file._didModify = True
    with pytest.raises(UserError, match="no checkpoint at all"):
        load_safely(path)


def doubled(times):
    value = [1]
    for _ in range(times):
        value = [value, value]
    return value


def cyclic():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [doubled(60), cyclic(), {"a": {"b": doubled(30)}}])
def test_containers_without_end_are_refused(tmp_path, value):
    path = tmp_path / "bomb.pt"
    torch.save({"format": FORMAT, "agent": value}, path)
    with pytest.raises(UserError, match="no checkpoint at all"):
        load_safely(path)
