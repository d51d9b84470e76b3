"""The policy prior, its loss and its scale against the equations, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.policy import Policy, PolicySample, RunningScale, policy_loss
from mbrl_flat.specs import Continuous, EnvSpec

EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize("seed", range(3))
def test_an_action_is_the_squashed_gaussian_draw(make_model, config, by_hand, seed):
    _, policy = make_model(config, seed=seed)
    latent = torch.randn(5, 16, dtype=torch.float64)
    noise = torch.randn(5, 2, dtype=torch.float64)

    sample = policy(latent, noise)

    action, density = by_hand.policy(by_hand.parameters(policy.net), latent, noise)
    torch.testing.assert_close(sample.action, action, **EXACT)
    torch.testing.assert_close(sample.scaled_entropy, -2.0 * density, **EXACT)
    volume = torch.log(1.0 - action**2 + 1e-6).sum(-1)
    torch.testing.assert_close(sample.entropy, -(density - volume), **EXACT)


def test_the_entropy_is_minus_the_log_density_of_the_squashed_gaussian(make_model, config):
    _, policy = make_model(config)
    with torch.no_grad():
        policy.net[-1].weight.zero_()
        policy.net[-1].bias.copy_(torch.tensor([0.1, -0.2, 0.5, 0.6], dtype=torch.float64))
    noise = 0.5 * torch.randn(50, 2, dtype=torch.float64)

    sample = policy(torch.zeros(50, 16, dtype=torch.float64), noise)

    log_std = -10.0 + 6.0 * (torch.tanh(torch.tensor([0.5, 0.6], dtype=torch.float64)) + 1.0)
    normal = Normal(torch.tensor([0.1, -0.2], dtype=torch.float64), log_std.exp())
    squashed = TransformedDistribution(normal, TanhTransform(cache_size=1))
    log_prob = Independent(squashed, 1).log_prob(sample.action)
    # The 1e-6 in the logarithm of the volume moves it by at most 1e-6 / (1 - a^2) an action.
    slack = (1e-6 / (1.0 - sample.action**2)).sum(-1)
    assert ((sample.entropy + log_prob).abs() <= slack + 1e-12).all()


def test_without_noise_given_the_draw_comes_from_the_global_stream(make_model, config):
    _, policy = make_model(config)
    latent = torch.randn(5, 16, dtype=torch.float64)

    torch.manual_seed(3)
    sample = policy(latent)

    torch.manual_seed(3)
    expected = policy(latent, torch.randn(5, 2, dtype=torch.float64))
    assert torch.equal(sample.action, expected.action)


@pytest.mark.parametrize(("raw", "log_std"), [(-50.0, -10.0), (0.0, -4.0), (50.0, 2.0)])
def test_the_log_standard_deviation_lies_between_minus_ten_and_two(
    make_model, config, raw, log_std
):
    _, policy = make_model(config)
    with torch.no_grad():
        policy.net[-1].weight.zero_()
        policy.net[-1].bias.copy_(torch.tensor([0.0, 0.0, raw, raw]))
    noise = torch.full((1, 2), 0.05, dtype=torch.float64)

    action = policy(torch.zeros(1, 16, dtype=torch.float64), noise).action

    expected = math.tanh(0.05 * math.exp(log_std))
    torch.testing.assert_close(action, torch.full_like(action, expected), **EXACT)


def test_a_discrete_action_is_one_hot_and_passes_its_gradient(make_model, config, discrete_spec):
    _, policy = make_model(config, discrete_spec)
    latent = torch.randn(7, 16, dtype=torch.float64)

    action = policy(latent, torch.randn(7, 4, dtype=torch.float64)).action
    (action * torch.arange(4.0)).sum().backward()

    assert torch.allclose(action.sort(-1).values, torch.eye(4, dtype=torch.float64)[3])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())
    assert policy.net[-1].weight.grad.abs().sum() > 0


def sample_of(scaled_entropy):
    return PolicySample(
        action=torch.zeros(0), entropy=torch.zeros(0), scaled_entropy=scaled_entropy
    )


def test_the_loss_is_the_decayed_mean_of_entropy_and_scaled_value(config):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    entropy = 100.0 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    config = replace(config, entropy_coef=1e-2)

    loss = policy_loss(sample_of(entropy), q, torch.tensor(3.0, dtype=torch.float64), config)

    expected = 0.0
    for t in range(4):
        mean = sum(-(1e-2 * entropy[b, t] + q[b, t] / 3.0) for b in range(5)) / 5
        expected = expected + 0.5**t * mean / 4
    torch.testing.assert_close(loss, expected, **EXACT)


def test_the_loss_gradient_is_minus_the_decay_over_the_scale(config):
    q = torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)

    policy_loss(
        sample_of(torch.zeros(5, 4, dtype=torch.float64)), q, torch.tensor(2.0), config
    ).backward()

    expected = -(0.5 ** torch.arange(4, dtype=torch.float64)) / (2.0 * 5 * 4)
    torch.testing.assert_close(q.grad, expected.expand(5, -1), **EXACT)


@pytest.mark.parametrize("spread", [0.1, 1.0, 7.0])
def test_the_scale_moves_towards_the_spread_of_values_but_not_below_one(spread):
    """S <- (1 - tau) S + tau max(1, P95 - P5); of 0..100 the percentiles are 5 and 95."""
    scale = RunningScale(0.01, torch.device("cpu"))
    q = torch.arange(101, dtype=torch.float64)[torch.randperm(101)] / 90.0 * spread

    scale.update(q)
    scale.update(q)

    expected = 1.0
    for _ in range(2):
        expected = 0.99 * expected + 0.01 * max(1.0, spread)
    assert scale.value.item() == pytest.approx(expected, rel=1e-6)


def test_the_scale_keeps_no_gradient():
    scale = RunningScale(0.01, torch.device("cpu"))

    scale.update(torch.randn(10, requires_grad=True))

    assert not scale.value.requires_grad


@pytest.mark.parametrize("size", [1, 6])
def test_samples_in_one_operator_equal_torchs_to_rounding(size):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    spec = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=size), episode_length=50)
    torch.manual_seed(0)
    policy = Policy(spec, TDMPC2Config(size="debug"))
    out = (0.3 * torch.randn(7, 5, 2 * size)).requires_grad_()
    noise = 0.3 * torch.randn(7, 5, size)
    exact = out.detach().double().requires_grad_()

    ours, theirs = policy._fused(out, noise), policy._sample(exact, noise.double(), None)

    direction = [torch.randn_like(part) for part in ours]
    for parts in ((0,), (1,), (2,), (0, 1, 2)):
        value = sum((ours[i] * direction[i]).sum() for i in parts)
        expected = sum((theirs[i] * direction[i].double()).sum() for i in parts)
        (grad,) = torch.autograd.grad(value, out, create_graph=True)
        (short,) = torch.autograd.grad(value, out, retain_graph=True)
        (wanted,) = torch.autograd.grad(expected, exact, create_graph=True)
        for one in (grad, short):
            torch.testing.assert_close(one.double(), wanted, rtol=1e-4, atol=1e-5)
        second = torch.autograd.grad(grad.square().sum(), out, retain_graph=True)[0]
        exact_second = torch.autograd.grad(wanted.square().sum(), exact, retain_graph=True)[0]
        torch.testing.assert_close(second.double(), exact_second, rtol=1e-3, atol=1e-3)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    torch.set_num_threads(before)
