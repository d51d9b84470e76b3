"""The world model against its equations, arXiv:2310.16828, Section 3, in float64."""

from dataclasses import replace

import pytest
import torch

from mbrl_flat.agents.tdmpc2.policy import Policy
from mbrl_flat.agents.tdmpc2.world_model import WorldModel
from mbrl_flat.data.batch import Batch
from mbrl_flat.specs import Continuous, EnvSpec

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def heads_and_noise(seed, num_q, shape):
    """The draws that ``targets`` makes from torch's global stream, in its order."""
    torch.manual_seed(seed)
    return torch.randperm(num_q)[:2], torch.randn(shape, dtype=torch.float64)


def test_encoder_is_linear_layernorm_mish_then_linear_layernorm_simnorm(
    make_model, config, by_hand
):
    model, _ = make_model(config)
    obs = torch.randn(5, 3, dtype=torch.float64)

    latent = model.encode({"state": obs})

    expected = by_hand.mlp(by_hand.parameters(model.encoder), obs, simnorm=True)
    torch.testing.assert_close(latent, expected, **EXACT)


def test_every_group_of_a_latent_sums_to_one(make_model, config):
    model, _ = make_model(config)

    latent = model.encode({"state": torch.randn(6, 3, dtype=torch.float64)})

    groups = latent.unflatten(-1, (8, 2)).sum(-2)
    torch.testing.assert_close(groups, torch.ones_like(groups), **EXACT)
    assert (latent > 0).all()


def test_rollout_applies_the_dynamics_once_for_each_action(make_model, config, by_hand):
    model, _ = make_model(config)
    latent = model.encode({"state": torch.randn(4, 3, dtype=torch.float64)})
    action = torch.randn(4, 3, 2, dtype=torch.float64)

    rollout = model.unroll(latent, action)

    expected = [latent]
    for t in range(3):
        pair = torch.cat([expected[-1], action[:, t]], -1)
        expected.append(by_hand.mlp(by_hand.parameters(model.dynamics), pair, simnorm=True))
    torch.testing.assert_close(rollout, torch.stack(expected, 1), **EXACT)


def test_q_values_are_the_decoded_outputs_of_each_member(make_model, config, by_hand):
    model, _ = make_model(config)
    latent = torch.randn(4, 16, dtype=torch.float64)
    action = torch.randn(4, 2, dtype=torch.float64)

    values = model.q_values(latent, action, None)
    targets = model.q_values(latent, action, None, target=True)

    for network, got in ((model.q, values), (model.target_q, targets)):
        parameters = by_hand.parameters(network)
        expected = torch.stack([by_hand.q(parameters, k, latent, action) for k in range(3)])
        torch.testing.assert_close(got, expected, **EXACT)
    assert not torch.allclose(values, targets)


def test_two_heads_drawn_first_have_the_values_of_two_picked_from_all(make_model, config):
    model, _ = make_model(config)
    latent = torch.randn(4, 3, 16, dtype=torch.float64)
    action = torch.randn(4, 3, 2, dtype=torch.float64)
    heads = torch.tensor([2, 0])

    drawn = model.q_values(latent, action, heads)

    torch.testing.assert_close(drawn, model.q_values(latent, action, None)[heads], **EXACT)


def test_drawn_heads_are_two_distinct_ones_and_every_pair_occurs(make_model, config):
    model, _ = make_model(config)
    torch.manual_seed(0)

    pairs = [tuple(model.draw_heads(torch.device("cpu")).tolist()) for _ in range(100)]

    assert set(pairs) == {(i, j) for i in range(3) for j in range(3) if i != j}


@pytest.mark.parametrize("seed", range(3))
def test_td_targets_take_the_smaller_of_two_target_heads_and_stop_at_terminations(
    make_model, make_batch, config, by_hand, seed
):
    model, policy = make_model(config, seed=seed)
    batch = make_batch(seed=seed)

    torch.manual_seed(seed)
    targets = model.targets(batch, policy)

    heads, noise = heads_and_noise(seed, 3, (4, 3, 2))
    y, latent = by_hand.td_targets(
        by_hand.all_parameters(model, policy), batch, discount=0.95, heads=heads, noise=noise
    )
    lower, share = targets["q_lower"], targets["q_share"]
    torch.testing.assert_close(targets["next_latent"], latent, **EXACT)
    bins = torch.tensor(by_hand.bins(), dtype=torch.float64)
    place = bins[lower] * (1.0 - share) + bins[lower + 1] * share
    torch.testing.assert_close(place.sign() * place.abs().expm1(), y, **EXACT)
    assert y[2, 0] == batch.reward[2, 0]


def test_terminations_are_ignored_in_targets_only_where_the_config_says_so(
    make_model, make_batch, config
):
    model, policy = make_model(config)
    ignoring, _ = make_model(replace(config, mask_terminated=False))
    batch, going_on = make_batch(), make_batch(terminated=False)

    def position(model, batch):
        torch.manual_seed(0)
        targets = model.targets(batch, policy)
        return targets["q_lower"] + targets["q_share"]

    assert torch.equal(position(ignoring, batch), position(model, going_on))
    assert not torch.equal(position(model, batch), position(model, going_on))


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_the_weighted_sum_of_its_parts_worked_by_hand(
    make_model, make_batch, config, by_hand, seed
):
    model, policy = make_model(config, seed=seed)
    batch = make_batch(seed=seed)
    torch.manual_seed(seed)
    targets = model.targets(batch, policy)

    output = model.loss(batch, targets)

    p = by_hand.all_parameters(model, policy)
    heads, noise = heads_and_noise(seed, 3, (4, 3, 2))
    y, latent = by_hand.td_targets(p, batch, discount=0.95, heads=heads, noise=noise)
    parts, latents = by_hand.losses(p, batch, y, latent)
    total = 20.0 * parts["consistency"] + 0.1 * parts["reward"] + 0.1 * parts["value"]
    total = total + parts["termination"]
    for name, value in parts.items():
        torch.testing.assert_close(output.metrics[f"train/{name}_loss"], value, **EXACT)
    torch.testing.assert_close(output.loss.detach(), total, **EXACT)
    torch.testing.assert_close(output.latents, torch.stack(latents, 1), **EXACT)


def test_loss_without_a_termination_head_ignores_terminations(make_model, make_batch, config):
    config = replace(config, episodic=False)
    model, policy = make_model(config)
    targets = model.targets(make_batch(), policy)

    with_ends = model.loss(make_batch(), targets)
    without = model.loss(make_batch(terminated=False), targets)

    assert torch.equal(with_ends.loss, without.loss)
    assert "train/termination_loss" not in with_ends.metrics
    assert "termination" not in model.trained_modules()


def test_gradients_of_the_loss_match_finite_differences(make_model, make_batch, config):
    model, policy = make_model(config)
    batch = make_batch()
    targets = model.targets(batch, policy)
    model.loss(batch, targets).loss.backward()

    generator = torch.Generator().manual_seed(3)
    for name, module in model.trained_modules().items():
        parameter = next(module.parameters())
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameter.add_(sign * 1e-5 * direction)
                losses.append(model.loss(batch, targets).loss)
                parameter.sub_(sign * 1e-5 * direction)
        slope = (losses[0] - losses[1]) / 2e-5
        expected = (parameter.grad * direction).sum()
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-9, msg=name)


def test_no_gradient_reaches_targets_target_heads_or_the_policy(make_model, make_batch, config):
    model, policy = make_model(config)
    batch = make_batch()
    targets = model.targets(batch, policy)

    output = model.loss(batch, targets)
    output.loss.backward()

    assert not any(value.requires_grad for value in targets.values())
    assert not output.latents.requires_grad
    assert all(p.grad is None and not p.requires_grad for p in model.target_q.parameters())
    assert all(p.grad is None for p in policy.parameters())
    for module in model.trained_modules().values():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_loss_is_a_function_of_the_weights_alone_once_targets_are_fixed(
    make_model, make_batch, config
):
    model, policy = make_model(config)
    batch = make_batch()
    targets = model.targets(batch, policy)

    first = model.loss(batch, targets).loss
    with torch.no_grad():
        for parameter in [*model.target_q.parameters(), *policy.parameters()]:
            parameter.add_(1.0)
    state = torch.get_rng_state()
    second = model.loss(batch, targets).loss

    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_target_heads_move_one_hundredth_of_the_way(make_model, config, by_hand):
    model, _ = make_model(config)
    old, q = by_hand.parameters(model.target_q), by_hand.parameters(model.q)

    model.update_target()

    for name, value in model.target_q.named_parameters():
        expected = 0.99 * old[name] + 0.01 * q[name]
        torch.testing.assert_close(value.detach(), expected, **EXACT)
    assert all(torch.equal(v, q[k]) for k, v in by_hand.parameters(model.q).items())


def test_target_heads_start_as_copies_and_values_start_at_zero(spec, config):
    model = WorldModel(spec, config)
    latent, action = torch.rand(4, 16), torch.rand(4, 2)

    for name, value in model.q.state_dict().items():
        assert torch.equal(value, model.target_q.state_dict()[name])
    zeros = torch.zeros(3, 4)
    torch.testing.assert_close(model.q_values(latent, action, None), zeros, rtol=0, atol=1e-5)
    reward = model.two_hot.decode(model.reward(torch.cat([latent, action], -1)))
    torch.testing.assert_close(reward, zeros[0], rtol=0, atol=1e-5)


def test_dropout_acts_on_trained_heads_in_training_only_and_never_on_target_heads(
    make_model, config
):
    model, _ = make_model(replace(config, dropout=0.5))
    latent = torch.randn(4, 16, dtype=torch.float64)
    action = torch.randn(4, 2, dtype=torch.float64)

    def values(*, target=False):
        return model.q_values(latent, action, None, target=target)

    calm = values()
    calm_target = values(target=True)
    model.train()

    assert not torch.equal(values(), values())
    assert torch.equal(values(target=True), calm_target)
    model.eval()
    assert torch.equal(values(), calm)


def test_a_training_mode_that_has_no_dropout_changes_nothing(make_model, make_batch, config):
    model, policy = make_model(config)
    batch = make_batch()
    targets = model.targets(batch, policy)

    evaluated = model.loss(batch, targets).loss
    trained = model.train().loss(batch, targets).loss

    assert torch.equal(evaluated, trained)


def test_entries_of_an_observation_are_joined_in_the_order_of_the_spec(make_model, config):
    spec = EnvSpec(
        obs={"velocity": (2,), "height": (1,)}, action=Continuous(dim=2), episode_length=50
    )
    model, _ = make_model(config, spec)
    velocity = torch.randn(4, 2, dtype=torch.float64)
    height = torch.randn(4, 1, dtype=torch.float64)

    latent = model.encode({"velocity": velocity, "height": height})
    swapped = model.encode({"height": height, "velocity": velocity})

    joined = model.encoder(torch.cat([velocity, height], -1))
    torch.testing.assert_close(latent, joined, **EXACT)
    torch.testing.assert_close(swapped, joined, **EXACT)


@pytest.mark.parametrize(
    ("episode_length", "discount"), [(500, 0.99), (1000, 0.995), (100, 0.95), (5000, 0.995)]
)
def test_discount_follows_the_published_heuristic(config, episode_length, discount):
    """clip((T/5 - 1) / (T/5), 0.95, 0.995) with T in agent steps."""
    spec = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=1), episode_length=episode_length)

    assert config.discount(spec) == pytest.approx(discount, abs=1e-12)


@pytest.mark.parametrize(
    ("size", "obs_size", "action_size", "millions"),
    [("1", 223, 38, 1.34), ("5", 223, 38, 5.16), ("5", 67, 21, 5.04), ("5", 24, 6, 4.96)],
)
def test_model_sizes_are_the_published_numbers_of_parameters(
    config, size, obs_size, action_size, millions
):
    spec = EnvSpec(
        obs={"state": (obs_size,)}, action=Continuous(dim=action_size), episode_length=500
    )
    config = replace(config, size=size, episodic=False)
    with torch.device("meta"):
        model, policy = WorldModel(spec, config), Policy(spec, config)

    trained = [p for m in model.trained_modules().values() for p in m.parameters()]
    count = sum(p.numel() for p in [*trained, *policy.parameters()])
    assert round(count / 1e6, 2) == millions


def test_batch_moves_to_a_device_whole(make_batch):
    batch = make_batch()

    moved = batch.to(torch.device("cpu"))

    assert isinstance(moved, Batch)
    assert torch.equal(moved.obs["state"], batch.obs["state"])
    assert torch.equal(moved.action, batch.action)
    assert torch.equal(moved.reward, batch.reward)
    assert torch.equal(moved.terminated, batch.terminated)
