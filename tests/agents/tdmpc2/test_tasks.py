"""TD-MPC2 on several tasks: embeddings, padding and masks, and nothing else changed."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.data.batch import Batch
from mbrl_flat.errors import UserError
from mbrl_flat.models.functional import gaussian_log_prob
from mbrl_flat.optim import make_optimizer
from mbrl_flat.optim.with_base import PlainOptimizer
from mbrl_flat.planning.mppi import MPPIConfig
from mbrl_flat.specs import TASK, Continuous, EnvSpec, TaskSpec

CPU = torch.device("cpu")
SMALL = TaskSpec(name="small", obs_size=2, action_size=1, episode_length=25)
LARGE = TaskSpec(name="large", obs_size=4, action_size=3, episode_length=500)
SPEC = EnvSpec(
    obs={"state": (4,), TASK: (1,)},
    action=Continuous(dim=3),
    episode_length=500,
    tasks=(SMALL, LARGE),
)
CONFIG = TDMPC2Config(
    size="debug",
    task_dim=5,
    batch_size=6,
    dropout=0.0,
    planner=MPPIConfig(num_samples=12, num_prior=4, num_elites=4, iterations=2),
)
ADAM = partial(PlainOptimizer, base=partial(torch.optim.Adam, lr=3e-4))


def make_agent(spec=SPEC, config=CONFIG, optimizer=ADAM, *, spread=0.3):
    torch.manual_seed(0)
    agent = TDMPC2(spec, config=config, optimizer=optimizer, device=CPU)
    with torch.no_grad():
        for parameter in [*agent.model.parameters(), *agent.policy.parameters()]:
            parameter.add_(spread * torch.randn_like(parameter))
    return agent


def make_batch(tasks=(0, 1, 0, 1, 1, 0), horizon=3, seed=0):
    """Subsequences as the replay gives them: what a task does not have is zero."""
    g = torch.Generator().manual_seed(seed)
    size = len(tasks)
    state = torch.randn(size, horizon + 1, 4, generator=g)
    action = 2.0 * torch.rand(size, horizon, 3, generator=g) - 1.0
    for row, task in enumerate(tasks):
        state[row, :, SPEC.tasks[task].obs_size :] = 0.0
        action[row, :, SPEC.tasks[task].action_size :] = 0.0
    index = torch.tensor(tasks, dtype=torch.float32)[:, None, None].expand(-1, horizon + 1, 1)
    return Batch(
        obs={"state": state, TASK: index.clone()},
        action=action,
        reward=torch.randn(size, horizon, generator=g),
        terminated=torch.zeros(size, horizon),
    )


def first_obs(batch):
    return {name: value[:, 0] for name, value in batch.obs.items()}


def test_a_latent_ends_with_the_embedding_the_actions_and_the_discount_of_its_task():
    agent, batch = make_agent(), make_batch()
    latent = agent.model.encode(first_obs(batch))
    dim, table = CONFIG.dims["latent_dim"], agent.model.tasks
    for row, task in zip(latent, (0, 1, 0, 1, 1, 0), strict=True):
        assert torch.equal(row[dim : dim + 5], table.embedding.weight[task])
    assert latent[0, dim + 5 :].tolist() == [1.0, 0.0, 0.0, pytest.approx(0.95)]
    assert latent[1, dim + 5 :].tolist() == [1.0, 1.0, 1.0, pytest.approx(0.99)]
    assert agent.task_discounts == (0.95, 0.99)
    after = agent.model.step(latent, batch.action[:, 0])
    assert torch.equal(after[:, dim:], latent[:, dim:])
    assert not torch.equal(after[:, :dim], latent[:, :dim])


def test_actions_that_a_task_does_not_have_are_exactly_zero_and_get_no_gradient():
    agent = make_agent()
    latent = agent.model.encode(first_obs(make_batch(tasks=(0,) * 6))).detach()
    sample = agent.policy(latent)
    assert torch.equal(sample.action[:, 1:], torch.zeros(6, 2))
    assert sample.action[:, 0].abs().min() > 0.0
    (sample.action.sum() + sample.scaled_entropy.sum() + sample.entropy.sum()).backward()
    last = list(agent.policy.net)[-1].weight.grad
    mean, log_std = last.chunk(2)
    assert torch.equal(mean[1:], torch.zeros_like(mean[1:]))
    assert torch.equal(log_std[1:], torch.zeros_like(log_std[1:]))
    assert mean[0].abs().max() > 0.0
    assert log_std[0].abs().max() > 0.0


def test_the_density_counts_only_the_actions_that_a_task_has():
    agent = make_agent()
    latent = agent.model.encode(first_obs(make_batch())).detach()
    noise = torch.randn(6, 3)
    sample = agent.policy(latent, noise)
    mean, raw = agent.policy.net(agent.model.layout.network_input(latent)).chunk(2, -1)
    log_std = -10.0 + 6.0 * (torch.tanh(raw) + 1.0)
    for row, task in enumerate((0, 1, 0, 1, 1, 0)):
        own = slice(SPEC.tasks[task].action_size)
        density = gaussian_log_prob(noise[row, own], log_std[row, own])
        expected = -SPEC.tasks[task].action_size * density
        torch.testing.assert_close(sample.scaled_entropy[row], expected)
        action = torch.tanh(mean[row, own] + noise[row, own] * log_std[row, own].exp())
        torch.testing.assert_close(sample.action[row, own], action)


@pytest.mark.parametrize("mode", ["explore", "eval", "policy"])
def test_plans_leave_actions_alone_that_a_task_does_not_have(mode):
    agent, batch = make_agent(), make_batch()
    generator, state = torch.Generator().manual_seed(0), agent.initial_state(6)
    for _ in range(2):
        action, state = agent.act(first_obs(batch), state, mode=mode, generator=generator)
        for row, task in enumerate((0, 1, 0, 1, 1, 0)):
            beyond = SPEC.tasks[task].action_size
            assert torch.equal(action[row, beyond:], torch.zeros(3 - beyond))
            assert action[row, :beyond].abs().min() > 0.0
    if mode != "policy":
        assert torch.equal(state["mean"][0, :, 1:], torch.zeros(3, 2))


def test_each_plan_is_valued_with_the_discount_of_its_own_task():
    agent, batch = make_agent(), make_batch(tasks=(0, 1))
    latent = agent.model.encode(first_obs(batch))
    actions, noise = 2.0 * torch.rand(2, 5, 3, 3) - 1.0, torch.randn(2, 5, 3)
    actions[0, ..., 1:] = 0.0
    heads = torch.tensor([0, 2])
    together = agent.planner.estimate_return(latent, actions, noise, heads)
    for row, gamma in enumerate(agent.task_discounts):
        z, value = latent[row].expand(5, -1), 0.0
        for t in range(3):
            _, reward, _ = agent.predict(z, actions[row, :, t])
            value = value + gamma**t * reward
            z = agent.model.step(z, actions[row, :, t])
        last = agent.policy(z, noise[row]).action
        value = value + gamma**3 * agent.model.q_values(z, last, heads).mean(0)
        torch.testing.assert_close(together[row], value, rtol=1e-4, atol=1e-4)


def test_targets_use_the_discount_of_the_task(monkeypatch):
    agent, batch = make_agent(), make_batch()
    monkeypatch.setattr(agent.model, "q_values", lambda *a, **k: torch.full((2, 6, 3), 4.0))
    targets = agent.model.targets(batch, agent.policy)
    gamma = torch.tensor([agent.task_discounts[task] for task in (0, 1, 0, 1, 1, 0)])
    lower, share = agent.model.two_hot.position(batch.reward + gamma[:, None] * 4.0)
    torch.testing.assert_close(targets["q_lower"], lower)
    torch.testing.assert_close(targets["q_share"], share, rtol=1e-4, atol=1e-4)


def test_weights_that_read_a_padded_observation_get_no_gradient_from_its_task():
    agent, batch = make_agent(), make_batch(tasks=(0,) * 6)
    agent.model.loss(batch, agent.model.targets(batch, agent.policy)).loss.backward()
    weight = next(agent.model.encoder.parameters()).grad
    assert torch.equal(weight[:, 2:4], torch.zeros_like(weight[:, 2:4]))
    assert weight[:, :2].abs().max() > 0.0
    assert weight[:, 4:].abs().max() > 0.0


def test_the_world_model_trains_embeddings_and_the_policy_does_not():
    agent, batch = make_agent(), make_batch(tasks=(0,) * 6)
    assert "tasks" in agent.model.trained_modules()
    before = agent.model.tasks.embedding.weight.detach().clone()
    latents = agent.model.unroll(agent.model.encode(first_obs(batch)), batch.action).detach()
    agent._update_policy(latents)
    assert torch.equal(agent.model.tasks.embedding.weight, before)
    assert agent.model.tasks.embedding.weight.grad is None
    agent.update(batch)
    after = agent.model.tasks.embedding.weight
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("method", ["adam", "sam", "msam", "ivon"])
def test_embeddings_stay_in_the_unit_ball_whatever_the_optimizer(method):
    agent = make_agent(optimizer=partial(make_optimizer, method, lr=0.1))
    weight = agent.model.tasks.embedding.weight
    with torch.no_grad():
        weight.mul_(10.0)
    for seed in range(2):
        agent.update(make_batch(seed=seed))
        assert weight.norm(dim=-1).max() <= 1.0 + 1e-6


def test_radius_zero_is_adam_bit_for_bit_on_several_tasks():
    agents = [
        make_agent(optimizer=partial(make_optimizer, name, lr=1e-2, **settings))
        for name, settings in (("adam", {}), ("sam", {"rho": 0.0}))
    ]
    for seed in range(5):
        rows = []
        for agent in agents:
            torch.manual_seed(seed)
            rows.append(agent.update(make_batch(seed=seed)))
        assert rows[0]["train/total_loss"] == rows[1]["train/total_loss"]
    for name, value in agents[0].model.state_dict().items():
        assert torch.equal(value, agents[1].model.state_dict()[name]), name


def test_one_task_without_an_embedding_is_the_single_task_agent_bit_for_bit():
    alone = EnvSpec(obs={"state": (4,)}, action=Continuous(dim=3), episode_length=500)
    listed = replace(SPEC, tasks=(LARGE,))
    agents = [make_agent(spec, replace(CONFIG, task_dim=0)) for spec in (alone, listed)]
    batch = make_batch(tasks=(1,) * 6)
    outcomes = []
    for agent in agents:
        torch.manual_seed(1)
        loss = agent.update(batch)["train/total_loss"]
        generator = torch.Generator().manual_seed(2)
        state = agent.initial_state(6)
        action, _ = agent.act(first_obs(batch), state, mode="explore", generator=generator)
        outcomes.append((loss, action))
    assert outcomes[0][0] == outcomes[1][0]
    assert torch.equal(outcomes[0][1], outcomes[1][1])
    states = [agent.model.state_dict() for agent in agents]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_bfloat16_plans_keep_the_discount_in_full_precision():
    agent = make_agent(config=replace(CONFIG, planner_dtype="bfloat16"))
    latent = agent.model.encode(first_obs(make_batch(tasks=(1, 1))))
    generator = torch.Generator().manual_seed(0)
    plan = agent.planner(latent, torch.zeros(2, 3, 3), generator, explore=False)
    assert plan.value.dtype == torch.float32
    assert torch.isfinite(plan.value).all()


@pytest.mark.parametrize(
    ("spec", "config", "words"),
    [
        (SPEC, replace(CONFIG, task_dim=0), "tells 2 tasks apart .* set agent.config.task_dim=96"),
        (replace(SPEC, tasks=()), CONFIG, "task_dim=5 is for several tasks"),
    ],
)
def test_tasks_and_embeddings_that_do_not_fit_are_told_in_one_sentence(spec, config, words):
    with pytest.raises(UserError, match=words):
        make_agent(spec, config)
    with pytest.raises(UserError, match="task_dim must be at least 0"):
        replace(CONFIG, task_dim=-1)
