"""Clocks are due once in each interval and continue exactly where they were saved."""

import dataclasses

import pytest

from mbrl_flat.training.clocks import Every, UpdateClock


def passed(clock, step):
    """Whether it is due at a step, after which it waits for the next interval."""
    due = clock.due(step)
    clock.advance(step)
    return due


def test_a_clock_is_due_at_the_first_step_of_each_interval_that_is_reached():
    clock = Every(10)

    assert [step for step in range(0, 50, 3) if passed(clock, step)] == [12, 21, 30, 42]


def test_a_stride_over_several_intervals_is_due_once():
    clock = Every(10)

    assert passed(clock, 95)
    assert not passed(clock, 99)
    assert passed(clock, 100)


def test_asking_twice_at_a_step_is_due_once():
    clock = Every(5)

    assert passed(clock, 5)
    assert not passed(clock, 5)


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_of_zero_is_never_due(interval):
    clock = Every(interval)

    assert not any(passed(clock, step) for step in range(100))


def test_a_clock_can_be_due_at_the_start():
    clock = Every(10, next=0)

    assert [step for step in range(25) if passed(clock, step)] == [0, 10, 20]


def test_a_saved_clock_goes_on():
    clock, straight = Every(7), Every(7)
    first = [step for step in range(0, 40, 2) if passed(clock, step)]

    resumed = Every(**dataclasses.asdict(clock))
    second = [step for step in range(40, 80, 2) if passed(resumed, step)]

    assert first + second == [step for step in range(0, 80, 2) if passed(straight, step)]


@pytest.mark.parametrize("ratio", [0.1, 0.25, 1.0 / 3.0, 1.0, 2.0, 8.0])
def test_updates_are_steps_times_ratio_without_drift(ratio):
    pending_updates, made = UpdateClock(ratio), 0

    for _ in range(3000):
        pending_updates.add_steps(1)
        while pending_updates.pop():
            made += 1

    assert made == round(3000 * ratio)


def test_a_ratio_of_zero_owes_nothing():
    pending_updates = UpdateClock(0.0)
    pending_updates.add_steps(1000)

    assert not pending_updates.pop()


def test_many_steps_at_once_owe_what_they_owe_one_by_one():
    pending_updates = UpdateClock(0.5)
    pending_updates.add_steps(7)

    assert [pending_updates.pop() for _ in range(5)] == [True, True, True, False, False]
    assert pending_updates.pending == 0.5


def test_a_saved_debt_goes_on():
    pending_updates = UpdateClock(0.3)
    pending_updates.add_steps(2)

    resumed = UpdateClock(**dataclasses.asdict(pending_updates))
    resumed.add_steps(2)

    assert resumed.pop()
    assert resumed.pending == pytest.approx(0.2)


@pytest.mark.parametrize(("ratio", "updates"), [(0.1, 10), (0.7, 70), (0.25, 25)])
def test_rounding_delays_no_update(ratio, updates):
    pending_updates, made = UpdateClock(ratio), 0
    for _ in range(100):
        pending_updates.add_steps(1)
        while pending_updates.due:
            made += pending_updates.pop()

    assert made == updates
