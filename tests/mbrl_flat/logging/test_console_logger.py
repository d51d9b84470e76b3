import io

import pytest

from mbrl_flat.logging import ConsoleLogger


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def streams():
    return io.StringIO(), io.StringIO()


def test_without_a_terminal_nothing_goes_to_the_bars_stream(streams):
    lines, bar = streams
    logger = ConsoleLogger(100, lines=lines, bar=bar)

    logger.write({"eval/return_mean": 1.0}, step=10, frame=20)
    logger.close()

    assert bar.getvalue() == ""


def test_an_evaluation_is_one_line_below_one_header(streams):
    lines, bar = streams
    logger = ConsoleLogger(100, lines=lines, bar=bar)

    logger.write({"eval/return_mean": 12.5, "eval/return_std": 3.0}, step=1000, frame=2000)
    logger.write({"eval/return_mean": 99.5, "eval/return_std": 1.0}, step=2000, frame=4000)
    logger.close()

    header, first, second = lines.getvalue().splitlines()
    assert "return" in header
    assert first.split()[:2] == ["1,000", "2,000"]
    assert "12.5" in first
    assert "99.5" in second


def test_a_line_shows_the_probes_of_its_own_step_and_a_dash_without_them(streams):
    lines, bar = streams
    logger = ConsoleLogger(100, lines=lines, bar=bar)

    logger.write({"eval/return_mean": 1.0}, step=1, frame=1)
    logger.write({"probe/sharpness/sam_gap": 0.125}, step=1, frame=1)
    logger.write({"eval/return_mean": 2.0}, step=2, frame=2)
    logger.close()

    _, first, second = lines.getvalue().splitlines()
    assert first.split()[-1] == "0.125"
    assert second.split()[-1] == "-"


def test_a_probe_that_measured_nothing_leaves_a_dash(streams):
    lines, bar = streams
    logger = ConsoleLogger(100, lines=lines, bar=bar)

    logger.write({"eval/return_mean": 1.0, "probe/sharpness/sam_gap": 0.125}, step=1, frame=1)
    logger.write({"probe/sharpness/sam_gap": 0.5}, step=2, frame=2)  # without an evaluation
    logger.write({"eval/return_mean": 2.0}, step=3, frame=3)
    logger.write({"probe/sharpness/lambda_max": 7.0}, step=3, frame=3)
    logger.advance(4)
    logger.write({"eval/return_mean": 3.0}, step=4, frame=4)
    logger.write({"probe/sharpness/sam_gap": 0.25}, step=4, frame=4)
    logger.close()

    gaps = [line.split()[-1] for line in lines.getvalue().splitlines()[1:]]
    assert gaps == ["0.125", "-", "0.25"]


def test_training_rows_are_lines_only_without_a_terminal(streams):
    row = {"train/total_loss": 0.5, "time/steps_per_second": 33.0}
    lines, bar = streams
    terminal = Terminal()

    ConsoleLogger(100, lines=lines, bar=bar).write(row, step=1000, frame=2000)
    with_bar = ConsoleLogger(100, lines=terminal, bar=Terminal())
    with_bar.write(row, step=1000, frame=2000)
    with_bar.close()

    assert lines.getvalue() == "step 1,000, frame 2,000, loss 0.5, 33.0 steps/s\n"
    assert "33.0" not in terminal.getvalue()


def test_on_a_terminal_the_bar_shows_progress_and_the_last_return():
    lines, bar = Terminal(), Terminal()
    logger = ConsoleLogger(100, description="walker", lines=lines, bar=bar)

    logger.advance(40)
    logger.write({"eval/return_mean": 123.4}, step=50, frame=100)
    logger.close()

    assert "walker" in bar.getvalue()
    assert "return=123.4" in bar.getvalue()
    assert "123.4" in lines.getvalue()


def test_the_time_of_updates_at_once_is_told_for_the_step_and_the_run(streams, monkeypatch):
    lines, bar = streams
    logger = ConsoleLogger(6000, updates_per_step=0.5, lines=lines, bar=bar)
    logger.advance(1000)
    for seconds, updates in ((0.0, 1), (1.0, 11), (20.0, 201)):
        monkeypatch.setattr("time.monotonic", lambda seconds=seconds: seconds)
        logger.learn(updates, 500 - updates)
    logger.learn(500, 0.0)

    # An update takes 0.1 seconds; 299 are due at this step, and 5,000 steps with half of one each
    # are still to come.
    assert lines.getvalue() == (
        "step 1,000, 201 of 500 updates, about 30 seconds left at this step, "
        "at least 5 minutes for the run\n"
    )
