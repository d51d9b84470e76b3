"""Words of a user as part of a file's name."""

from pathlib import Path

import pytest

from mbrl_flat.runs.folder import run_folder_path
from mbrl_flat.runtime.file_names import as_file_name

NAMES = {"agent": "tdmpc2", "optimizer": "adam"}


@pytest.mark.parametrize("text", ["walker-walk", "a+b", "Pong-v5", "x_1.0", ""])
def test_what_is_a_name_already_stays(text):
    assert as_file_name(text) == text


@pytest.mark.parametrize(
    ("text", "name"), [("ALE/Pong-v5", "ALE-Pong-v5"), ("m.n:Id v1", "m.n-Id-v1"), ("ü模", "-")]
)
def test_other_letters_become_one_dash(text, name):
    assert as_file_name(text) == name


@pytest.mark.parametrize("task", ["module:ALE/Pong-v5", "../up", "+".join(["walker-walk"] * 80)])
def test_the_folder_of_a_run_is_one_folder_whatever_its_task(task):
    folder = run_folder_path(None, {**NAMES, "task": task}, seed=3)

    assert folder.parent == Path("runs")
    assert "_tdmpc2_adam_s3_" in folder.name
