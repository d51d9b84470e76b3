import json
import math
import os
from contextlib import ExitStack, closing

import pytest

from mbrl_flat.errors import UserError
from mbrl_flat.logging import JsonlLogger, read_metrics


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture
def open_logger():
    """Make loggers that are closed when the test is over."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(closing(JsonlLogger(*args, **kwargs)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def test_a_row_comes_back_with_its_step_frame_and_time(open_logger, path):
    logger = open_logger(path, clock=lambda: 1234.5678)

    logger.write({"eval/return_mean": 0.1 + 0.2}, step=10, frame=20)

    assert read_metrics(path) == [
        {"step": 10, "frame": 20, "time": 1234.568, "eval/return_mean": 0.1 + 0.2}
    ]


def test_a_row_can_be_read_before_the_logger_is_closed(open_logger, path):
    logger = open_logger(path)

    for step in range(3):
        logger.write({"a/b": 1.0}, step=step, frame=step)
        assert len(read_metrics(path)) == step + 1


def test_numbers_that_are_not_finite_are_null_in_strict_json_and_nan_when_read(open_logger, path):
    logger = open_logger(path)

    logger.write({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}, step=0, frame=0)

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert [line[name] for name in "abcd"] == [None, None, None, 1.0]
    (row,) = read_metrics(path)
    assert [math.isnan(row[name]) for name in "abcd"] == [True, True, True, False]


def test_a_metric_cannot_take_the_name_of_the_rows_own_fields(open_logger, path):
    logger = open_logger(path)

    with pytest.raises(ValueError, match="time"):
        logger.write({"time": 1.0}, step=0, frame=0)

    assert path.read_bytes() == b""


def test_a_torn_last_line_is_left_out_when_read_and_cut_when_written_to(open_logger, path):
    open_logger(path).write({"a": 1.0}, step=1, frame=1)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 2, "fra')

    assert [row["step"] for row in read_metrics(path)] == [1]
    open_logger(path).write({"a": 2.0}, step=2, frame=2)

    assert path.read_bytes().startswith(whole)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("torn", [b"", b'{"step"', b"x" * 200_000])
def test_only_whole_lines_survive_opening_whatever_the_length_of_the_torn_one(
    open_logger, path, torn
):
    path.parent.mkdir()
    path.write_bytes(b'{"step": 1}\n' + torn)

    assert open_logger(path).position == 12
    assert path.read_bytes() == b'{"step": 1}\n'


def test_a_file_that_is_one_torn_line_becomes_empty(open_logger, path):
    path.parent.mkdir()
    path.write_bytes(b'{"step"')

    assert open_logger(path).position == 0


def test_truncating_to_a_position_undoes_every_later_row(open_logger, path):
    logger = open_logger(path, clock=lambda: 0.0)
    logger.write({"a": 1.0}, step=1, frame=1)
    position, before = logger.position, path.read_bytes()
    logger.write({"a": 2.0}, step=2, frame=2)

    logger.truncate(position)
    logger.write({"a": 3.0}, step=3, frame=3)

    assert path.read_bytes().startswith(before)
    assert [row["step"] for row in read_metrics(path)] == [1, 3]
    assert logger.position == len(path.read_bytes())


def test_a_reopened_file_goes_on_where_it_was(open_logger, path):
    first = open_logger(path)
    first.write({"a": 1.0}, step=1, frame=1)
    position = first.position
    first.write({"a": 2.0}, step=2, frame=2)
    first.close()

    second = open_logger(path)
    second.truncate(position)
    second.write({"a": 4.0}, step=4, frame=4)

    assert [row["step"] for row in read_metrics(path)] == [1, 4]


@pytest.mark.parametrize("lost", [1, 20])
def test_a_file_that_lost_its_end_is_refused_as_it_is(open_logger, path, lost):
    """An editor may leave out the last end of line; the row is whole and not ours to delete."""
    logger = open_logger(path)
    for step in (1, 2):
        logger.write({"a": 1.0}, step=step, frame=step)
    position = logger.position
    path.write_bytes(left := path.read_bytes()[:-lost])

    with pytest.raises(UserError, match=f"knows: {position} is not the end.* .{len(left)} bytes"):
        open_logger(path).truncate(position)

    assert path.read_bytes() == left


@pytest.mark.parametrize("position", [5, 10_000, -1])
def test_a_position_that_is_no_end_of_a_line_is_refused_and_nothing_is_cut(
    open_logger, path, position
):
    logger = open_logger(path)
    logger.write({"a": 1.0}, step=1, frame=1)
    before = path.read_bytes()

    with pytest.raises(UserError, match="not the file that the checkpoint knows"):
        logger.truncate(position)

    assert path.read_bytes() == before


def test_a_broken_line_in_the_middle_is_named(path):
    path.parent.mkdir()
    path.write_bytes(b'{"step": 1}\nnonsense\n{"step": 2}\n')

    with pytest.raises(UserError, match="Line 2"):
        read_metrics(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_metrics(path)


def test_a_pipe_and_a_file_beyond_any_run_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**42)

    with pytest.raises(UserError, match="pipe is a pipe or a device"):
        read_metrics(tmp_path / "pipe")
    with pytest.raises(UserError, match="large is damaged"):
        read_metrics(tmp_path / "large")


def test_a_file_whose_last_line_never_ends_is_not_searched_to_its_beginning(open_logger, path):
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(2**42)

    with pytest.raises(UserError, match="its last line has no end"):
        open_logger(path)


def test_metrics_recorded_under_old_names_are_read_under_the_current_ones(path):
    path.parent.mkdir()
    path.write_text(
        '{"step": 1, "probe/sharpness/adaptive_gap": 0.5, "probe/sharpness/q/average_gap": 0.25, '
        '"probe/rollout/loss_gap": 2.0, "train/worst_gap": 3.0}\n'
    )

    assert read_metrics(path) == [
        {
            "step": 1,
            "probe/sharpness/adaptive_sharpness": 0.5,
            "probe/sharpness/q/average_case_sharpness": 0.25,
            "probe/rollout/loss_gap": 2.0,
            "train/worst_gap": 3.0,
        }
    ]
