"""Means between two log lines, and where the time went."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from mbrl_flat.training import meters
from mbrl_flat.training.meters import MeanMeter, Stopwatch, rss_bytes


def test_means_are_over_the_rows_that_had_the_metric():
    meter = MeanMeter()
    meter.add({"a": 1.0, "b": torch.tensor(2.0)})
    meter.add({"a": 3.0})
    meter.add({"a": torch.tensor(8.0, requires_grad=True)})

    assert meter.pop() == {"a": 4.0, "b": 2.0}
    assert meter.pop() == {}


def test_a_metric_that_changes_in_place_counts_as_it_was():
    meter, value = MeanMeter(), torch.tensor(1.0, dtype=torch.float64)
    meter.add({"a": value})
    value.fill_(100.0)
    meter.add({"a": value})

    assert meter.pop() == {"a": 50.5}


def test_sums_are_kept_in_float64():
    meter = MeanMeter()
    meter.add({"a": 1e8})
    for _ in range(100):
        meter.add({"a": torch.tensor(1.0)})

    assert meter.pop()["a"] == (1e8 + 100.0) / 101.0


def test_a_number_that_is_not_finite_shows():
    meter = MeanMeter()
    meter.add({"a": 1.0})
    meter.add({"a": float("nan")})

    assert math.isnan(meter.pop()["a"])


def test_a_saved_meter_goes_on_bit_for_bit():
    values = torch.randn(20, generator=torch.Generator().manual_seed(0)).unbind()
    straight, first = MeanMeter(), MeanMeter()
    for value in values:
        straight.add({"a": value})
    for value in values[:7]:
        first.add({"a": value})
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)

    second = MeanMeter()
    second.load_state_dict(torch.load(file, weights_only=True))
    for value in values[7:]:
        second.add({"a": value})

    assert second.pop() == straight.pop()


def test_a_saved_state_does_not_follow_the_meter():
    meter = MeanMeter()
    meter.add({"a": 1.0})
    state = meter.state_dict()
    meter.add({"a": 5.0})
    meter.pop()

    other = MeanMeter()
    other.load_state_dict(state)

    assert other.pop() == {"a": 1.0}


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(meters, "time", made)
    return made


def test_seconds_are_added_up_by_part_and_steps_by_second(clock):
    watch = Stopwatch()
    for _ in range(2):
        with watch.measure("env"):
            clock.now += 1.5
        with watch.measure("update"):
            clock.now += 0.5
    clock.now += 1.0
    watch.add_steps(20)

    row = watch.pop()

    assert row["time/env"] == 3.0
    assert row["time/update"] == 1.0
    assert row["time/act"] == row["time/sample"] == row["time/probe"] == 0.0
    assert row["time/steps_per_second"] == 4.0


def test_a_stopwatch_starts_anew_after_each_row(clock):
    watch = Stopwatch()
    with watch.measure("env"):
        clock.now += 1.0
    watch.add_steps(5)
    watch.pop()
    clock.now += 2.0
    watch.add_steps(4)

    row = watch.pop()

    assert row["time/env"] == 0.0
    assert row["time/steps_per_second"] == 2.0


def test_time_counts_also_when_the_body_raises(clock):
    watch = Stopwatch()

    def act():
        with watch.measure("act"):
            clock.now += 1.0
            raise KeyError

    with pytest.raises(KeyError):
        act()

    assert watch.pop()["time/act"] == 1.0


def test_a_row_taken_at_once_divides_by_no_zero(clock):
    assert math.isfinite(Stopwatch().pop()["time/steps_per_second"])


def test_the_size_of_a_process_is_not_that_of_the_one_that_started_it():
    held = np.ones(500_000_000, dtype=np.uint8)
    command = [
        sys.executable,
        "-c",
        "from mbrl_flat.training.meters import rss_bytes; print(rss_bytes())",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert held.nbytes < rss_bytes()
    assert float(done.stdout) < rss_bytes() - held.nbytes / 2
