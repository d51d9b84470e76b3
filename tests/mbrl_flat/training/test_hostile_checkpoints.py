"""Checkpoints from someone else, a few bytes of which would fill the memory or never end."""

import zipfile

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import save_atomically
from mbrl_flat.training.checkpoint import FORMAT, CheckpointFolder, load_safely


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


@pytest.mark.parametrize(
    "content",
    [
        {"agent": {"unused": torch.zeros(1).expand(2 * 10**10)}},
        {"agent": [torch.zeros(1000).view(10, 100)] * 100},
        {"agent": torch.zeros(1).expand(2 * 10**10)},
        {"agent": {"w": {"numpy array": 5}}},
    ],
)
def test_tensors_that_are_larger_than_their_file_and_arrays_that_are_none(tmp_path, content):
    path = tmp_path / "bomb.pt"
    torch.save({"format": FORMAT, "step": 0, **content}, path)
    with pytest.raises(UserError, match="no checkpoint at all"):
        load_safely(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "x"), ("step", None), ("step", 1.5), ("step", -1), ("step", 10**400),
        ("shapes", [1]), ("shapes", "x"), ("finished", "no"), ("replay", 3),
    ],
)  # fmt: skip
def test_what_is_said_of_a_checkpoint_has_its_kind(tmp_path, name, value):
    path = tmp_path / "latest.pt"
    torch.save({"format": FORMAT, "step": 0, "agent": {}, name: value}, path)
    with pytest.raises(UserError, match=rf"is damaged \({name} is "):
        load_safely(path)


def test_a_checkpoint_without_its_step_is_damaged(tmp_path):
    torch.save({"format": FORMAT, "agent": {}}, tmp_path / "latest.pt")
    with pytest.raises(UserError, match=r"is damaged \(step is None"):
        load_safely(tmp_path / "latest.pt")
    torch.save({"format": FORMAT}, tmp_path / "latest.pt")
    with pytest.raises(UserError, match=r"is damaged \(no step"):
        CheckpointFolder(tmp_path).load_for_resume(steps=9, device=torch.device("cpu"))
