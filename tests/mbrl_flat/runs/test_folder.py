"""The folder of a run: new, numbered, never overwritten, and telling where it came from."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.runs import folder as run_folder
from mbrl_flat.runs import provenance
from mbrl_flat.runs.folder import create_run_folder, writing
from mbrl_flat.runs.provenance import describe_environment, write_environment
from mbrl_flat.runtime.files import write_text_atomically


def test_a_folder_and_its_parents_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "run"

    assert create_run_folder(path, exact=False) == path
    assert path.is_dir()


def _refused_start(folder):
    with writing(folder, new=True):
        (folder / "config.yaml").write_text("a: 1")
        (folder / "replay").symlink_to(folder.parent)
        raise UserError("refused")


def test_a_start_that_fails_removes_all_folders_that_it_made_and_no_other(tmp_path):
    (tmp_path / "there").mkdir()
    for path in ("there", "there/run", "new/runs/run"):
        folder = create_run_folder(tmp_path / path, exact=True)
        with pytest.raises(UserError, match="refused"):
            _refused_start(folder)

    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_names_that_are_taken_are_numbered(tmp_path):
    made = [create_run_folder(tmp_path / "run", exact=False) for _ in range(3)]

    assert [path.name for path in made] == ["run", "run-2", "run-3"]


def test_processes_that_ask_at_once_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_run_folder(tmp_path / "run", exact=False), range(24)))

    assert len(set(made)) == 24


def test_a_folder_that_the_user_named_is_never_overwritten(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "metrics.jsonl").write_text("precious")

    with pytest.raises(UserError) as caught:
        create_run_folder(path, exact=True)

    assert str(caught.value) == (
        f"The run folder {path} exists already and is never overwritten; "
        f"choose another run_dir, or resume it with resume={path}."
    )
    assert (path / "metrics.jsonl").read_text() == "precious"
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_an_empty_folder_that_the_user_named_is_taken(tmp_path):
    assert create_run_folder(tmp_path, exact=True) == tmp_path


@pytest.mark.parametrize("exact", [True, False])
def test_a_path_below_a_file_cannot_be_made(tmp_path, exact):
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="Cannot make the run folder"):
        create_run_folder(tmp_path / "file" / "run", exact=exact)


def test_a_file_of_that_name_is_never_overwritten(tmp_path):
    (tmp_path / "run").write_text("precious")

    with pytest.raises(UserError, match="exists already"):
        create_run_folder(tmp_path / "run", exact=True)

    assert create_run_folder(tmp_path / "run", exact=False).name == "run-2"
    assert (tmp_path / "run").read_text() == "precious"


@pytest.mark.parametrize("exact", [True, False])
def test_a_path_that_may_not_be_written_is_named_with_the_reason(tmp_path, monkeypatch, exact):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(UserError) as caught:
        create_run_folder(tmp_path / "run", exact=exact)

    assert str(caught.value) == f"Cannot make the run folder {tmp_path / 'run'}: Permission denied."


def test_a_text_is_replaced_whole(tmp_path):
    path = tmp_path / "notes.txt"

    write_text_atomically(path, "first")
    write_text_atomically(path, "second, in Å")

    assert path.read_text(encoding="utf-8") == "second, in Å"
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    write_text_atomically(path, "first")

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(run_folder.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_text_atomically(path, "second")

    assert path.read_text() == "first"


def test_the_environment_tells_what_a_number_depends_on(tmp_path):
    write_environment(tmp_path, torch.device("cpu"))

    told = json.loads((tmp_path / "environment.json").read_text())
    assert told == describe_environment(torch.device("cpu"))
    assert told["packages"]["torch"] == torch.__version__.split("+")[0] or (
        told["packages"]["torch"] == torch.__version__
    )
    assert told["device"] == "cpu"
    assert told["device_name"] is None
    assert told["torch_threads"] == torch.get_num_threads()
    assert {"python", "platform", "processor", "host_cores", "git_revision", "git_dirty"} <= set(
        told
    )


def test_asking_git_leaves_no_lock_that_would_stop_the_next_commit(monkeypatch):
    asked = []
    monkeypatch.setattr(
        provenance.subprocess,
        "run",
        lambda command, **_: asked.append(command) or SimpleNamespace(stdout="1\n"),
    )
    describe_environment(torch.device("cpu"))
    asked = [command for command in asked if command[0] == "git"]
    assert {tuple(command[:2]) for command in asked} == {("git", "--no-optional-locks")}


def test_without_git_nothing_is_said_of_the_revision(monkeypatch):
    def absent(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", absent)

    told = describe_environment(torch.device("cpu"))

    assert told["git_revision"] is None
    assert told["git_dirty"] is None
