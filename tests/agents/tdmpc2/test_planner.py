"""What the planner maximises, worked by hand in float64, and how it draws and remembers."""

from dataclasses import replace

import pytest
import torch

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.planner import LatentPlanner
from mbrl_flat.planning.mppi import MPPIConfig
from mbrl_flat.specs import Continuous, EnvSpec

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def inputs(num=2, samples=3, horizon=3, seed=0):
    """Latents, raw actions, noise of the last action and two heads."""
    g = torch.Generator().manual_seed(seed)
    latent = torch.randn(num, 16, generator=g, dtype=torch.float64)
    actions = 1.5 * torch.randn(num, samples, horizon, 2, generator=g, dtype=torch.float64)
    noise = torch.randn(num, samples, 2, generator=g, dtype=torch.float64)
    return latent, actions, noise, torch.tensor([2, 1])


def return_by_hand(by_hand, p, plan, *, latent, noise, heads, discount=0.95):
    """Value of one plan ``[H, A]`` from one latent ``[D]``, one step after the other."""
    total, alive, latent = 0.0, 1.0, latent[None]
    for t, action in enumerate(plan.clamp(-1.0, 1.0)):
        pair = torch.cat([latent, action[None]], -1)
        reward = by_hand.decode(by_hand.mlp(p["reward"], pair))
        total = total + discount**t * alive * reward
        latent = by_hand.mlp(p["dynamics"], pair, simnorm=True)
        if "termination" in p and torch.sigmoid(by_hand.mlp(p["termination"], latent)) > 0.5:
            alive = 0.0
    action, _ = by_hand.policy(p["policy"], latent, noise[None])
    last = sum(by_hand.q(p["q"], int(head), latent, action) for head in heads) / 2.0
    return total + discount ** len(plan) * alive * last


@pytest.mark.parametrize("episodic", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_plans_value_is_its_discounted_reward_plus_the_mean_of_two_values(
    make_model, config, by_hand, episodic, seed
):
    model, policy = make_model(replace(config, episodic=episodic), seed=seed)
    planner = LatentPlanner(model, policy, MPPIConfig())
    latent, actions, noise, heads = inputs(seed=seed)

    value = planner.estimate_return(latent, actions, noise, heads)

    p = by_hand.all_parameters(model, policy)
    for n in range(2):
        for s in range(3):
            expected = return_by_hand(
                by_hand, p, actions[n, s], latent=latent[n], noise=noise[n, s], heads=heads
            )
            torch.testing.assert_close(value[n, s : s + 1], expected, **EXACT)


def test_nothing_counts_after_a_predicted_termination(make_model, config, by_hand):
    model, policy = make_model(config)
    with torch.no_grad():
        model.termination[-1].bias.fill_(1e3)
    planner = LatentPlanner(model, policy, MPPIConfig())
    latent, actions, noise, heads = inputs()

    value = planner.estimate_return(latent, actions, noise, heads)

    pair = torch.cat([latent[:, None].expand(-1, 3, -1), actions[:, :, 0].clamp(-1.0, 1.0)], -1)
    first = by_hand.decode(by_hand.mlp(by_hand.parameters(model.reward), pair))
    torch.testing.assert_close(value, first, **EXACT)


def test_prior_sequences_roll_the_policy_out_in_the_dynamics(make_model, config, by_hand):
    model, policy = make_model(config)
    planner = LatentPlanner(model, policy, MPPIConfig())
    latent, _, _, _ = inputs()
    noise = torch.randn(2, 5, 3, 2, dtype=torch.float64)

    prior = planner._prior_sequences(latent, noise)

    p = by_hand.all_parameters(model, policy)
    z = latent[:, None].expand(-1, 5, -1)
    for t in range(3):
        action, _ = by_hand.policy(p["policy"], z, noise[:, :, t])
        torch.testing.assert_close(prior[:, :, t], action, **EXACT)
        z = by_hand.mlp(p["dynamics"], torch.cat([z, action], -1), simnorm=True)


def test_discrete_plans_are_valued_as_the_choices_they_stand_for(make_model, config, discrete_spec):
    model, policy = make_model(config, discrete_spec)
    planner = LatentPlanner(model, policy, MPPIConfig())
    latent = torch.randn(2, 16, dtype=torch.float64)
    raw = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    choices = torch.nn.functional.one_hot(raw.argmax(-1), 4).double()
    noise = torch.randn(2, 3, 4, dtype=torch.float64)
    heads = torch.tensor([0, 1])

    value = planner.estimate_return(latent, raw, noise, heads)

    expected = planner.estimate_return(latent, choices, noise, heads)
    torch.testing.assert_close(value, expected, **EXACT)


def small_planner(make_model, config, **kwargs):
    model, policy = make_model(config)
    settings = {"num_samples": 32, "num_prior": 4, "num_elites": 8, "iterations": 3, **kwargs}
    return LatentPlanner(model.float(), policy.float(), MPPIConfig(**settings))


def test_a_plan_follows_from_the_generator_and_leaves_the_global_stream_alone(make_model, config):
    planner = small_planner(make_model, config)
    latent, mean = torch.randn(2, 16), torch.zeros(2, 3, 2)
    state = torch.get_rng_state()

    plans = [
        planner(latent, mean, torch.Generator().manual_seed(seed), explore=True)
        for seed in (0, 0, 1)
    ]

    assert all(torch.equal(a, b) for a, b in zip(plans[0], plans[1], strict=True))
    assert not torch.equal(plans[0].action, plans[2].action)
    assert torch.equal(state, torch.get_rng_state())


def test_every_iteration_has_heads_and_noise_of_its_own(make_model, config):
    planner = small_planner(make_model, config, iterations=20)
    valued, heads, noises = planner.estimate_return, [], []

    def record(latent, actions, noise, drawn, known):
        heads.append(tuple(drawn.tolist()))
        noises.append(noise)
        return valued(latent, actions, noise, drawn, known)

    planner._value = record
    planner(torch.randn(2, 16), torch.zeros(2, 3, 2), torch.Generator(), explore=False)

    assert len(heads) == 20
    assert len(set(heads)) > 1
    assert not any(torch.equal(noises[0], noise) for noise in noises[1:])


@pytest.mark.parametrize("episodic", [False, True])
def test_a_known_rollout_is_worth_what_its_actions_are(make_model, config, episodic):
    planner = LatentPlanner(*make_model(replace(config, episodic=episodic)), MPPIConfig())
    latent, actions, noise, heads = inputs(samples=5)

    whole = planner.estimate_return(latent, actions, noise, heads)

    known = planner.roll_out(latent, actions[:, :2])
    parts = planner.estimate_return(latent, actions[:, 2:], noise, heads, known)
    torch.testing.assert_close(parts, whole, **EXACT)


def test_planning_beats_the_values_of_random_plans(make_model, config):
    planner = small_planner(make_model, config, num_samples=128, num_elites=16)
    latent, mean = torch.randn(1, 16), torch.zeros(1, 3, 2)
    generator = torch.Generator().manual_seed(0)

    plan = planner(latent, mean, generator, explore=False)

    actions = 2.0 * torch.rand(1, 500, 3, 2, generator=generator) - 1.0
    noise = torch.randn(1, 500, 2, generator=generator)
    values = planner.estimate_return(latent, actions, noise, torch.tensor([0, 1]))
    assert plan.value.item() > values.mean().item()


def test_a_planner_without_prior_sequences_plans(make_model, config):
    planner = small_planner(make_model, config, num_prior=0)

    plan = planner(torch.randn(2, 16), torch.zeros(2, 3, 2), torch.Generator(), explore=False)

    assert plan.action.shape == (2, 2)
    assert plan.mean.shape == (2, 3, 2)
    assert plan.value.shape == (2,)


@pytest.mark.parametrize(("action_size", "iterations"), [(6, 6), (19, 6), (20, 8), (38, 8)])
def test_wide_actions_are_planned_with_two_more_iterations(action_size, iterations):
    spec = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=action_size), episode_length=500)

    config = TDMPC2Config(horizon=5).planner_for(spec)

    assert config.iterations == iterations
    assert config.horizon == 5
