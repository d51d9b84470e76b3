"""Dropout drawn by gaps has the law of dropout drawn by a mask."""

import pytest
import torch
from scipy.stats import chisquare

from mbrl_flat.models.dropout import dropout


def ones(*shape):
    return torch.ones(*shape, dtype=torch.float64)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_elements_are_dropped_with_the_given_probability(p):
    torch.manual_seed(0)

    y = dropout(ones(400_000), p, training=True)

    share = (y == 0).double().mean().item()
    # Six standard errors.
    assert share == pytest.approx(p, abs=6.0 * (p * (1.0 - p) / 400_000) ** 0.5)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_kept_elements_are_scaled_so_that_the_mean_stays(p):
    torch.manual_seed(0)
    x = torch.randn(1000, dtype=torch.float64)

    y = dropout(x, p, training=True)

    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1.0 - p), rtol=1e-12, atol=0)


def test_elements_are_dropped_independently_of_their_neighbours():
    """Pairs at a distance of 1 to 5 are both dropped as often as p squared says."""
    torch.manual_seed(0)

    gone = (dropout(ones(400_000), 0.2, training=True) == 0).double()

    for distance in range(1, 6):
        both = (gone[:-distance] * gone[distance:]).mean().item()
        assert both == pytest.approx(0.04, abs=0.003)


def test_every_place_is_dropped_as_often_as_every_other():
    torch.manual_seed(0)

    gone = sum((dropout(ones(16), 0.3, training=True) == 0).double() for _ in range(4000))

    assert chisquare(gone.numpy()).pvalue > 1e-3


def test_the_number_dropped_of_a_few_elements_is_binomial():
    """P(none of 4) = 0.7^4, P(all of 4) = 0.3^4."""
    torch.manual_seed(0)

    counts = torch.stack([(dropout(ones(4), 0.3, training=True) == 0).sum() for _ in range(4000)])

    assert (counts == 0).double().mean().item() == pytest.approx(0.7**4, abs=0.03)
    assert (counts == 4).double().mean().item() == pytest.approx(0.3**4, abs=0.012)


def test_the_gaps_reach_the_end_of_large_inputs():
    torch.manual_seed(0)

    gone = dropout(ones(1_000_000), 0.01, training=True) == 0

    tenths = gone.unflatten(0, (10, -1)).double().mean(1)
    torch.testing.assert_close(tenths, torch.full_like(tenths, 0.01), rtol=0, atol=0.002)


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True)])
def test_without_training_or_probability_the_input_comes_back_and_nothing_is_drawn(p, training):
    x, state = torch.randn(5), torch.get_rng_state()

    assert dropout(x, p, training=training) is x
    assert torch.equal(state, torch.get_rng_state())


def test_the_draw_follows_from_the_global_stream():
    torch.manual_seed(1)
    first = dropout(ones(1000), 0.5, training=True)
    second = dropout(ones(1000), 0.5, training=True)
    torch.manual_seed(1)
    again = [dropout(ones(1000), 0.5, training=True) for _ in range(2)]

    assert torch.equal(again[0], first)
    assert torch.equal(again[1], second)
    # Independent draws agree at half of the entries; the standard deviation is 16.
    assert 400 < int((first == second).sum()) < 600


def test_the_gradient_passes_through_kept_elements_alone_and_scaled():
    torch.manual_seed(0)
    x = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)

    y = dropout(x, 0.25, training=True)
    y.sum().backward()

    expected = (y.detach() != 0).double() / 0.75
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 3, 4)])
def test_any_shape_and_type_comes_back_as_it_was(shape):
    for dtype in (torch.float32, torch.float64):
        y = dropout(torch.ones(shape, dtype=dtype), 0.5, training=True)

        assert y.shape == shape
        assert y.dtype == dtype


def test_the_input_is_left_alone_whatever_its_layout():
    x = torch.randn(6, 4).T
    before = x.clone()

    y = dropout(x, 0.5, training=True)

    assert torch.equal(x, before)
    assert torch.equal(y[y != 0], 2.0 * x[y != 0])
