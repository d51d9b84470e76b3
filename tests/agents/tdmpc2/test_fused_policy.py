"""The policy's gradient in two calls of C against the same in torch, which float64 goes through."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from mbrl_flat.agents.tdmpc2 import fused_policy, policy_gradient
from mbrl_flat.agents.tdmpc2 import policy as policy_module
from mbrl_flat.agents.tdmpc2.policy import RunningScale
from mbrl_flat.models import kernels

ROWS = (5, 4)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pair(make_model, config):
    """Model, policy and scale in float32, and the same in float64."""
    config = replace(config, episodic=False, dropout=0.2, entropy_coef=0.05)
    exact = (*make_model(config), RunningScale(0.5, torch.device("cpu")))
    short = [deepcopy(one).float() for one in exact[:2]]
    for model in (exact[0], short[0]):
        model.train()
    exact[2].value = exact[2].value.double()
    return (*short, RunningScale(0.5, torch.device("cpu"))), exact


def latents(dtype=torch.float32):
    drawn = torch.randn(*ROWS, 16, generator=torch.Generator().manual_seed(1))
    return drawn.to(dtype)


def assert_close(ours, theirs, relative=3e-6):
    bound = relative * max(float(theirs.detach().abs().max()), 1e-3)
    torch.testing.assert_close(ours.double(), theirs.detach(), rtol=0.0, atol=bound)


@pytest.mark.parametrize("seed", range(3))
def test_loss_draws_scale_and_gradient_equal_torchs_to_rounding(pair, monkeypatch, seed):
    (model, policy, scale), (exact, wanted, wanted_scale) = pair
    torch.manual_seed(seed)
    noise = torch.randn(*ROWS, 2)
    mask = model.q.dropout_mask(2, torch.empty(20, 18))
    assert float(mask.min()) == 0.0
    monkeypatch.setattr(fused_policy, "draw_noise", lambda *a: noise)
    monkeypatch.setattr(policy_module, "draw_noise", lambda *a: noise.double())
    monkeypatch.setattr(model.q, "dropout_mask", lambda *a: mask)
    monkeypatch.setattr(exact.q, "dropout_mask", lambda *a: mask.double())
    assert fused_policy.usable(model, policy, latents())

    torch.manual_seed(seed)
    sample, loss = policy_gradient.policy_gradient(model, policy, latents(), scale)
    torch.manual_seed(seed)
    expected, expected_loss = policy_gradient.policy_gradient(
        exact, wanted, latents(torch.float64), wanted_scale
    )

    assert_close(sample.action, expected.action)
    assert_close(sample.scaled_entropy, expected.scaled_entropy)
    # The logarithm of 1 - a^2 magnifies the rounding of actions near one.
    assert_close(sample.entropy, expected.entropy, 1e-3)
    assert_close(loss, expected_loss, 1e-5)
    assert_close(scale.value, wanted_scale.value)
    assert float(scale.value) > 1.0
    for ours, theirs in zip(policy.parameters(), wanted.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad, 1e-5)


def test_the_same_is_drawn_as_by_torchs_operators(pair):
    (model, policy, scale), _ = pair
    torch.manual_seed(7)
    sample, _ = policy_gradient.policy_gradient(model, policy, latents(), scale)
    after = torch.get_rng_state()
    grads = [p.grad.clone() for p in policy.parameters()]

    torch.manual_seed(7)
    scale.value = torch.ones(())
    with kernels.turned_off():
        expected, _ = policy_gradient.policy_gradient(model, policy, latents(), scale)

    assert torch.equal(after, torch.get_rng_state())
    assert_close(sample.action, expected.action.double())
    for ours, param in zip(grads, policy.parameters(), strict=True):
        assert_close(ours, param.grad.double(), 1e-5)


def test_a_second_call_replaces_the_gradient_and_q_functions_take_none(pair):
    (model, policy, scale), _ = pair
    torch.manual_seed(0)
    policy_gradient.policy_gradient(model, policy, latents(), scale)
    first = [p.grad.clone() for p in policy.parameters()]
    scale.value = torch.ones(())
    torch.manual_seed(0)

    policy_gradient.policy_gradient(model, policy, latents(), scale)

    for ours, param in zip(first, policy.parameters(), strict=True):
        assert torch.equal(ours, param.grad)
    assert all(p.grad is None and p.requires_grad for p in model.q.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_targets_take_the_smaller_value_of_the_target_q_functions(
    pair, make_batch, make_batch32, monkeypatch, seed
):
    (model, policy, _), (exact, wanted, _) = pair
    torch.manual_seed(seed)
    noise = torch.randn(5, 3, 2)
    monkeypatch.setattr(fused_policy, "draw_noise", lambda *a: noise)
    monkeypatch.setattr(policy_module, "draw_noise", lambda *a: noise.double())

    torch.manual_seed(seed)
    found = model.targets(make_batch32(size=5), policy)
    torch.manual_seed(seed)
    expected = exact.targets(make_batch(size=5), wanted)

    assert torch.equal(found["q_lower"], expected["q_lower"])
    assert_close(found["q_share"], expected["q_share"], 1e-4)


def test_a_value_that_is_no_number_stays_none_in_the_targets(pair, make_batch32):
    (model, policy, _), _ = pair
    with torch.no_grad():
        model.target_q.last.bias[0].fill_(float("nan"))
    for heads in ([0, 1], [1, 0]):
        drawn = torch.tensor(heads)

        value = fused_policy.FusedPolicy(model, policy, latents(), drawn, target=True).value

        assert bool(value.isnan().all())


@pytest.mark.parametrize("where", ["policy", "q"])
def test_a_hook_on_a_module_is_told_what_it_returns(pair, where):
    (model, policy, scale), _ = pair
    seen = []
    hooked = policy.net if where == "policy" else model.q
    hooked.register_forward_hook(lambda *a: seen.append(1))

    policy_gradient.policy_gradient(model, policy, latents(), scale)

    assert seen == [1]
