from contextlib import closing

import pytest

from mbrl_flat.logging import JsonlLogger, MultiLogger, read_metrics


@pytest.fixture
def record(tmp_path):
    with closing(JsonlLogger(tmp_path / "metrics.jsonl")) as logger:
        yield logger


class Mirror:
    def __init__(self):
        self.rows, self.closed = [], False

    def write(self, metrics, *, step, frame):
        self.rows.append((dict(metrics), step, frame))

    def close(self):
        self.closed = True


class Broken(Mirror):
    def close(self):
        raise OSError("gone")


def test_every_row_reaches_the_record_and_all_mirrors(record):
    mirrors = [Mirror(), Mirror()]
    logger = MultiLogger(record, *mirrors)

    logger.write({"a": 1.0}, step=1, frame=2)

    assert [mirror.rows for mirror in mirrors] == [[({"a": 1.0}, 1, 2)]] * 2
    assert len(read_metrics(record.path)) == 1


def test_position_and_truncate_are_those_of_the_record(record):
    logger = MultiLogger(record, Mirror())
    logger.write({"a": 1.0}, step=1, frame=2)
    position = logger.position
    logger.write({"a": 2.0}, step=2, frame=4)

    logger.truncate(position)

    assert logger.position == record.position == position
    assert [row["step"] for row in read_metrics(record.path)] == [1]


def test_the_record_and_the_other_mirrors_close_when_one_fails(record):
    mirror = Mirror()
    logger = MultiLogger(record, mirror, Broken())

    with pytest.raises(OSError, match="gone"):
        logger.close()

    assert mirror.closed
    with pytest.raises(ValueError, match="closed"):
        record.write({"a": 1.0}, step=1, frame=1)
