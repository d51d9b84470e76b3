"""Pure functions against closed forms and torch's own, in float64."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from mbrl_flat.errors import UserError
from mbrl_flat.models.functional import (
    TwoHot,
    gaussian_log_prob,
    percentile_range,
    symexp,
    symlog,
    tanh_log_det,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SUPPORT = TwoHot()


def scalars():
    return torch.tensor([-2e4, -100.0, -1.0, -0.3, -1e-9, 0.0, 1e-9, 0.3, 1.0, 100.0, 2e4]).double()


def test_symlog_and_symexp_invert_each_other():
    x = scalars()

    torch.testing.assert_close(symexp(symlog(x)), x, **EXACT)
    torch.testing.assert_close(symlog(symexp(symlog(x))), symlog(x), **EXACT)


def test_symlog_is_odd_and_worked_by_hand():
    assert symlog(torch.tensor(math.e - 1.0, dtype=torch.float64)).item() == pytest.approx(
        1.0, abs=1e-12
    )
    torch.testing.assert_close(symlog(-scalars()), -symlog(scalars()), **EXACT)
    assert symlog(torch.zeros(1)).item() == 0.0


def test_two_hot_probabilities_are_worked_by_hand():
    """Bins -1, -0.5, 0, 0.5, 1; symlog(y) = 0.3 lies at three fifths between 0 and 0.5."""
    support = TwoHot(num_bins=5, low=-1.0, high=1.0)

    probs = support.encode(symexp(torch.tensor(0.3, dtype=torch.float64)))

    expected = torch.tensor([0.0, 0.0, 0.4, 0.6, 0.0], dtype=torch.float64)
    torch.testing.assert_close(probs, expected, **EXACT)


def test_two_hot_probabilities_have_the_target_as_their_mean():
    probs = SUPPORT.encode(scalars())

    bins = torch.linspace(-10.0, 10.0, 101, dtype=torch.float64)
    torch.testing.assert_close(probs.sum(-1), torch.ones(11).double(), **EXACT)
    torch.testing.assert_close(probs @ bins, symlog(scalars()), **EXACT)
    assert (probs >= 0).all()
    assert ((probs > 0).sum(-1) <= 2).all()


def test_targets_beyond_the_support_lie_on_its_edges():
    probs = SUPPORT.encode(torch.tensor([-1e9, 1e9, -math.inf, math.inf], dtype=torch.float64))

    assert probs.argmax(-1).tolist() == [0, 100, 0, 100]
    torch.testing.assert_close(probs.amax(-1), torch.ones(4).double(), **EXACT)


def test_a_target_that_is_not_a_number_gives_a_loss_that_is_not_a_number():
    target = torch.tensor([1.0, math.nan], dtype=torch.float64)

    loss = SUPPORT.cross_entropy(torch.zeros(2, 101).double(), SUPPORT.position(target))

    assert loss[0].isfinite()
    assert loss[1].isnan()


def test_decoding_the_logarithm_of_an_encoding_gives_the_scalar_back():
    probs = SUPPORT.encode(scalars())

    torch.testing.assert_close(SUPPORT.decode(probs.log()), scalars(), rtol=1e-10, atol=1e-12)


def test_even_logits_decode_to_zero():
    assert SUPPORT.decode(torch.zeros(101, dtype=torch.float64)).item() == pytest.approx(
        0, abs=1e-12
    )


def test_cross_entropy_is_that_of_the_two_hot_probabilities():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(11, 101, generator=generator).double()

    loss = SUPPORT.cross_entropy(logits, SUPPORT.position(scalars()))

    expected = -(SUPPORT.encode(scalars()) * torch.log_softmax(logits, -1)).sum(-1)
    torch.testing.assert_close(loss, expected, **EXACT)


def test_cross_entropy_broadcasts_targets_over_members():
    logits = torch.randn(3, 11, 101, generator=torch.Generator().manual_seed(0)).double()
    position = SUPPORT.position(scalars())

    loss = SUPPORT.cross_entropy(logits, position)

    for k in range(3):
        torch.testing.assert_close(loss[k], SUPPORT.cross_entropy(logits[k], position), **EXACT)


def test_the_gradient_of_the_cross_entropy_is_softmax_minus_target():
    logits = torch.randn(11, 101, generator=torch.Generator().manual_seed(0)).double()
    logits.requires_grad_()

    SUPPORT.cross_entropy(logits, SUPPORT.position(scalars())).sum().backward()

    expected = torch.softmax(logits.detach(), -1) - SUPPORT.encode(scalars())
    torch.testing.assert_close(logits.grad, expected, **EXACT)


def test_logits_of_any_size_give_a_finite_loss():
    logits = torch.full((1, 101), -1e30)
    logits[0, 50] = 1e30

    assert SUPPORT.cross_entropy(logits, SUPPORT.position(torch.zeros(1))).item() == 0.0


@pytest.mark.parametrize(
    "wrong", [{"num_bins": 1}, {"low": 1.0, "high": 1.0}, {"low": 2.0, "high": 1.0}]
)
def test_a_support_without_extent_is_refused(wrong):
    with pytest.raises(UserError, match="TwoHot needs num_bins >= 2 and low < high; got num_bins="):
        TwoHot(**wrong)


def test_gaussian_log_density_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(5, 3, generator=generator).double()
    log_std = torch.randn(5, 3, generator=generator).double()
    mean = torch.randn(5, 3, generator=generator).double()

    density = gaussian_log_prob(noise, log_std)

    normal = Normal(mean, log_std.exp())
    expected = normal.log_prob(mean + noise * log_std.exp()).sum(-1)
    torch.testing.assert_close(density, expected, rtol=1e-10, atol=1e-12)


def test_the_change_of_volume_of_tanh_is_the_log_of_its_slope():
    x = torch.linspace(-3.0, 3.0, 10, dtype=torch.float64, requires_grad=True)

    (slope,) = torch.autograd.grad(torch.tanh(x).sum(), x)

    expected = torch.log(slope + 1e-6).sum()
    torch.testing.assert_close(tanh_log_det(torch.tanh(x)).detach(), expected, **EXACT)


def test_the_change_of_volume_is_finite_at_the_edges_and_beyond():
    action = torch.tensor([1.0, -1.0, 1.5], dtype=torch.float64)

    assert tanh_log_det(action).item() == pytest.approx(3.0 * math.log(1e-6), abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 7, 256])
@pytest.mark.parametrize(("low", "high"), [(5.0, 95.0), (0.0, 100.0), (25.0, 50.0)])
def test_percentiles_are_those_of_numpy(count, low, high):
    x = torch.randn(count, generator=torch.Generator().manual_seed(0)).double()

    spread = percentile_range(x, low, high)

    expected = np.percentile(x, high) - np.percentile(x, low)
    assert spread.item() == pytest.approx(expected, abs=1e-12)


def test_mixed_precision_does_not_round_decoded_scalars():
    support, logits = TwoHot(num_bins=255, low=-20.0, high=20.0), torch.randn(64, 255)

    with torch.autocast("cpu", torch.bfloat16):
        decoded = support.decode(logits)

    # bfloat16 would differ by 1e-2; the fused operator is left out under autocast.
    torch.testing.assert_close(decoded, support.decode(logits), rtol=1e-5, atol=1e-5)
