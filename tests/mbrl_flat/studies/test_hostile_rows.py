"""``study.json`` and ``rows.jsonl`` of a folder that someone else may have written."""

import os
import re

import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.files import check_inside
from mbrl_flat.studies.experiments.hopfield import Hopfield
from mbrl_flat.studies.framework import run_study
from mbrl_flat.studies.framework.rows import RowFile

STUDY = Hopfield(strengths=(0.05,), rotations=2)
CELL = b'"cell": {"strength": 0.05, "seed": 0}'
SETTINGS = {
    "deep": b'{"size": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "many digits": b'{"size": ' + b"9" * 5000 + b"}",
    "too large": b'{"size": ' + b"9" * 400 + b"}",
    "a list": b"[1]",
    "no text": b"\xff\xfe",
    "NaN": b'{"size": NaN}',
    "a key": b'{"NaN": {"a": [[1]]}}',
}
ROWS = {
    "deep": b'{"cell": ' + b"[" * 5000 + b"]" * 5000 + b"}\n",
    "deep value": b"{" + CELL + b', "rise_outlier": ' + b"[" * 60 + b"]" * 60 + b"}\n",
    "many digits": b'{"cell": {"seed": ' + b"9" * 5000 + b"}}\n",
    "too large": b"{" + CELL + b', "rise_outlier": ' + b"9" * 400 + b"}\n",
    "no cell": b'{"cell": 3}\n',
    "no text": b"\xff\xfe\n{",
}


@pytest.mark.parametrize("content", SETTINGS.values(), ids=SETTINGS)
def test_hostile_settings_of_a_study_are_one_message(tmp_path, content):
    (tmp_path / "study.json").write_bytes(content)

    with pytest.raises(UserError, match=r"is damaged|other settings") as refused:
        run_study(STUDY, tmp_path, command="test")

    assert str(refused.value).count("restore it") < 2
    assert (tmp_path / "study.json").read_bytes() == content


@pytest.mark.parametrize("content", ROWS.values(), ids=ROWS)
def test_hostile_rows_of_a_study_are_one_message(tmp_path, content):
    (tmp_path / "rows.jsonl").write_bytes(content)

    with pytest.raises(UserError, match=r"not a JSON object|not the record|is damaged"):
        RowFile(tmp_path / "rows.jsonl")

    assert (tmp_path / "rows.jsonl").read_bytes() == content


@pytest.mark.parametrize("value", [b'"b"', b'{"a": 1}', b"[1]"])
def test_a_measurement_that_is_no_number_is_named(tmp_path, value):
    (tmp_path / "rows.jsonl").write_bytes(b"{" + CELL + b', "rise_outlier": ' + value + b"}\n")
    rows = RowFile(tmp_path / "rows.jsonl").rows

    for read in (rows.values, rows.by_seed):
        with pytest.raises(UserError, match=r"has rise_outlier=.*, not a number"):
            read("rise_outlier")


@pytest.mark.parametrize("name", ["rows.jsonl", "study.json"])
def test_a_pipe_does_not_hold_up_a_study(tmp_path, name):
    os.mkfifo(tmp_path / name)

    with pytest.raises(UserError, match=r"is a pipe or a device"):
        run_study(STUDY, tmp_path, command="test")


@pytest.mark.parametrize(
    "name",
    [
        "rows.jsonl", "latest.pt.tmp", "config.yaml.tmp", ".losses.partial.png", "act.pt2",
        "act.onnx", "wandb_run_id.txt",
    ],
)  # fmt: skip
def test_what_is_written_in_place_is_no_hard_link(tmp_path, name):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.write_text("")
    folder.mkdir()
    os.link(outside, folder / name)

    with pytest.raises(UserError, match=rf"{re.escape(name)} is a hard link"):
        check_inside(folder)
