"""Two-hot encoding on bins in raw space, worked by hand in float64."""

import math

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.models.functional import SymexpTwoHot, symexp

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def test_positions_are_linear_in_raw_space():
    """With three bins -(e - 1), 0, e - 1, the target 0.5 lies at 0.5 / (e - 1) above the middle."""
    support = SymexpTwoHot(num_bins=3, limit=1.0)

    lower, share = support.position(torch.tensor([0.5, -(math.e - 1.0)], dtype=torch.float64))

    assert lower.tolist() == [1, 0]
    expected = torch.tensor([0.5 / (math.e - 1.0), 0.0], dtype=torch.float64)
    torch.testing.assert_close(share, expected, **EXACT)


def test_the_mean_of_an_encoded_target_is_the_target():
    support = SymexpTwoHot()
    bins = symexp(torch.linspace(-20.0, 20.0, 255, dtype=torch.float64))
    target = torch.tensor([-3e8, -7.3, -1e-3, 0.0, 0.4, 12.0, 4e8], dtype=torch.float64)

    lower, share = support.position(target)

    mean = (1.0 - share) * bins[lower] + share * bins[lower + 1]
    torch.testing.assert_close(mean, target, rtol=1e-9, atol=1e-9)


def test_targets_beyond_the_bins_go_to_the_edges():
    support = SymexpTwoHot(num_bins=5, limit=2.0)

    lower, share = support.position(torch.tensor([-1e9, 1e9], dtype=torch.float64))

    assert (lower.tolist(), share.tolist()) == ([0, 3], [0.0, 1.0])


def test_a_target_that_is_not_a_number_stays_one():
    support = SymexpTwoHot(num_bins=5, limit=2.0)

    position = support.position(torch.tensor([math.nan]))

    assert support.cross_entropy(torch.zeros(1, 5), position).isnan().all()


def test_even_logits_decode_to_exactly_zero():
    assert SymexpTwoHot().decode(torch.zeros(2, 255)).tolist() == [0.0, 0.0]


def test_the_decoded_value_is_the_mean_over_the_bins():
    support = SymexpTwoHot(num_bins=5, limit=2.0)
    logits = torch.randn(7, 5, dtype=torch.float64)
    bins = symexp(torch.linspace(-2.0, 2.0, 5, dtype=torch.float64))

    torch.testing.assert_close(support.decode(logits), logits.softmax(-1) @ bins, **EXACT)


def test_the_cross_entropy_is_worked_by_hand():
    support = SymexpTwoHot(num_bins=3, limit=1.0)
    logits = torch.tensor([0.1, 0.7, -0.3], dtype=torch.float64)
    log_q = torch.log_softmax(logits, -1)
    share = 0.5 / (math.e - 1.0)

    loss = support.cross_entropy(logits, support.position(torch.tensor(0.5, dtype=torch.float64)))

    expected = -(1.0 - share) * log_q[1] - share * log_q[2]
    torch.testing.assert_close(loss, expected, **EXACT)


def test_an_even_number_of_bins_is_refused():
    with pytest.raises(UserError, match="odd num_bins"):
        SymexpTwoHot(num_bins=4)
