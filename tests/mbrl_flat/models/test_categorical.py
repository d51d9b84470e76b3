"""Categorical latents, KL balance and lambda-returns, worked by hand in float64."""

import math

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.models.categorical import (
    balanced_kl,
    categorical_kl,
    draw_one_hot,
    gumbel_noise,
    lambda_returns,
    straight_through,
    unimix,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def logs(*probs):
    return torch.tensor(probs, dtype=torch.float64).log()


def test_unimix_is_worked_by_hand():
    logits = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)

    torch.testing.assert_close(unimix(logits, 0.1), logs(0.9 * 0.75 + 0.05, 0.9 * 0.25 + 0.05))
    torch.testing.assert_close(unimix(logits, 0.0), logs(0.75, 0.25), **EXACT)


def test_the_kl_is_worked_by_hand_and_summed_over_the_categoricals():
    p, q = logs([0.5, 0.5], [0.25, 0.75]), logs([0.25, 0.75], [0.25, 0.75])

    expected = 0.5 * math.log(2.0) + 0.5 * math.log(2.0 / 3.0)
    assert categorical_kl(p, q).item() == pytest.approx(expected, abs=1e-12)


def test_each_side_of_the_balanced_kl_moves_one_distribution():
    posterior = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    prior = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    terms = balanced_kl(torch.log_softmax(posterior, -1), torch.log_softmax(prior, -1))

    assert terms.dynamics.item() == terms.representation.item()
    by_dynamics = torch.autograd.grad(
        terms.dynamics, [posterior, prior], allow_unused=True, retain_graph=True
    )
    by_representation = torch.autograd.grad(
        terms.representation, [posterior, prior], allow_unused=True
    )
    assert by_dynamics[0] is None
    assert by_representation[1] is None
    # d KL(p || q) / d logits of q = q - p
    torch.testing.assert_close(
        by_dynamics[1], (prior.softmax(-1) - posterior.softmax(-1)).detach(), **EXACT
    )


def test_samples_are_one_hot_and_their_gradient_is_that_of_the_probabilities():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64)
    log_probs = torch.log_softmax(logits, -1)

    sample = straight_through(log_probs, torch.zeros(5, 4, dtype=torch.float64))

    torch.testing.assert_close(
        sample.detach(), torch.nn.functional.one_hot(logits.argmax(-1), 4).double(), **EXACT
    )
    (got,) = torch.autograd.grad((sample * weight).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((log_probs.exp() * weight).sum(), logits)
    torch.testing.assert_close(got, expected, **EXACT)


def test_samples_follow_the_distribution():
    generator = torch.Generator().manual_seed(0)
    log_probs = logs(0.1, 0.2, 0.7).float().expand(20_000, 3)

    noise = gumbel_noise((20_000, 3), device=torch.device("cpu"), generator=generator)
    share = straight_through(log_probs, noise).mean(0)

    # Four standard deviations of a share over 20,000 draws.
    torch.testing.assert_close(share, torch.tensor([0.1, 0.2, 0.7]), rtol=0.0, atol=0.014)


def test_draws_without_gradient_follow_the_distribution_too():
    generator = torch.Generator().manual_seed(0)
    log_probs = logs(0.1, 0.2, 0.7).expand(20_000, 3)

    draws = draw_one_hot(log_probs, generator=generator)

    assert torch.equal(draws.sum(-1), torch.ones(20_000, dtype=torch.float64))
    expected = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    # Four standard deviations of a share over 20,000 draws.
    torch.testing.assert_close(draws.mean(0), expected, rtol=0.0, atol=0.014)


def test_a_class_without_probability_is_never_drawn():
    log_probs = torch.tensor([0.0, 1.0, 0.0]).log().expand(1000, 3)

    assert draw_one_hot(log_probs)[:, 1].all()


def test_lambda_returns_are_worked_by_hand():
    reward = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    discount = torch.tensor([[0.5, 0.9]], dtype=torch.float64)
    value = torch.tensor([[7.0, 10.0, 20.0]], dtype=torch.float64)

    returns = lambda_returns(reward, discount, value, lambda_=0.8)

    last = 2.0 + 0.9 * 20.0
    first = 1.0 + 0.5 * (0.2 * 10.0 + 0.8 * last)
    torch.testing.assert_close(returns, torch.tensor([[first, last]]).double(), **EXACT)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 1.0])
def test_exact_values_are_a_fixed_point_of_every_lambda(lambda_):
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    discount = torch.rand(3, 6, dtype=torch.float64, generator=generator)
    value = [torch.randn(3, dtype=torch.float64, generator=generator)]
    for t in range(5, -1, -1):
        value.insert(0, reward[:, t] + discount[:, t] * value[0])
    value = torch.stack(value, 1)

    returns = lambda_returns(reward, discount, value, lambda_=lambda_)

    torch.testing.assert_close(returns, value[:, :-1], **EXACT)


def test_nothing_beyond_a_break_of_the_path_reaches_the_returns_before_it():
    reward = torch.arange(4.0, dtype=torch.float64)[None]
    discount = torch.full((1, 4), 0.9, dtype=torch.float64)
    value = torch.arange(5.0, dtype=torch.float64)[None]
    lambda_ = torch.full((1, 4), 0.95, dtype=torch.float64)
    lambda_[:, 1] = 0.0
    other = reward.clone()
    other[:, 2:] = 100.0

    before = lambda_returns(reward, discount, value, lambda_=lambda_)
    after = lambda_returns(other, discount, value, lambda_=lambda_)

    torch.testing.assert_close(before[:, :2], after[:, :2], **EXACT)
    assert before[0, 1].item() == pytest.approx(1.0 + 0.9 * 2.0, abs=1e-12)


def test_a_lambda_outside_of_its_range_is_refused():
    with pytest.raises(UserError, match="lambda_ must lie in"):
        lambda_returns(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 2), lambda_=1.5)
