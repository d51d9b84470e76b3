"""Round trips that hold for every input, searched by hypothesis."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from mbrl_flat.models.functional import TwoHot, percentile_range, symexp, symlog
from mbrl_flat.training.clocks import Every, UpdateClock

supports = st.builds(
    TwoHot,
    num_bins=st.integers(2, 300),
    low=st.floats(-20.0, -0.1),
    high=st.floats(0.1, 20.0),
)
finite = st.floats(-1e6, 1e6)


def double(value):
    return torch.tensor(value, dtype=torch.float64)


@given(supports, finite)
def test_a_scalar_within_the_support_comes_back_from_its_two_hot_probabilities(support, value):
    place = symlog(double(value)).clamp(support.low, support.high)

    probs = support.encode(symexp(place))

    decoded = support.decode(probs.log())
    torch.testing.assert_close(decoded, symexp(place), rtol=1e-9, atol=1e-9)


@given(supports, st.floats(allow_nan=False))
def test_two_hot_probabilities_are_probabilities_of_at_most_two_neighbours(support, value):
    probs = support.encode(double(value))

    used = probs.nonzero().flatten().tolist()
    assert math.isclose(probs.sum().item(), 1.0, abs_tol=1e-12)
    assert probs.min().item() >= 0.0
    assert len(used) <= 2
    assert used[-1] - used[0] <= 1


@given(supports, finite, finite)
def test_two_hot_keeps_the_order_of_scalars(support, first, second):
    low, high = sorted((first, second))

    lower = [sum(support.position(double(value))) for value in (low, high)]

    assert lower[0] <= lower[1] + 1e-9


@given(st.lists(finite, min_size=1, max_size=30), st.floats(-100.0, 100.0), st.floats(0.1, 10.0))
def test_a_distance_of_percentiles_ignores_shifts_and_scales_with_its_input(values, shift, scale):
    x = double(values)

    moved = percentile_range(scale * x + shift)

    expected = scale * percentile_range(x)
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-6)


@given(st.integers(1, 50), st.lists(st.integers(1, 120), max_size=50))
def test_a_clock_is_due_once_in_each_interval_that_is_entered(interval, strides):
    clock, step, due, entered = Every(interval), 0, 0, set()

    for stride in strides:
        step += stride
        due += clock.due(step)
        clock.advance(step)
        entered.add(step // interval)

    assert due == len(entered - {0})


@given(st.floats(0.01, 8.0), st.lists(st.integers(1, 9), max_size=200))
def test_updates_made_are_the_steps_made_times_their_ratio(ratio, strides):
    pending_updates, made = UpdateClock(ratio), 0

    for stride in strides:
        pending_updates.add_steps(stride)
        while pending_updates.pop():
            made += 1

    owed = ratio * sum(strides)
    assert owed - 1.0 - 1e-6 < made <= owed + 1e-6
