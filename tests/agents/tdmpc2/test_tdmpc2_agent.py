"""TD-MPC2 as a whole: its update against one written by hand, and the contracts of an agent."""

import io
from dataclasses import replace

import pytest
import torch

from mbrl_flat.specs import Continuous, EnvSpec

EXACT = {"rtol": 1e-9, "atol": 1e-12}


class HandMade:
    """The whole update in plain torch: losses from ``ByHand``, Adam and clipping written out."""

    def __init__(self, by_hand, agent, clip, policy_latents="rollout"):
        self.by_hand, self.clip, self.count = by_hand, clip, 0
        self.policy_latents = policy_latents
        self.p = by_hand.all_parameters(agent.model, agent.policy)
        self.first = {m: {k: torch.zeros_like(v) for k, v in d.items()} for m, d in self.p.items()}
        self.second = {m: {k: torch.zeros_like(v) for k, v in d.items()} for m, d in self.p.items()}
        self.scale = 1.0

    def adam(self, names, loss, lr, eps):
        """Clip the joint norm of the gradients of modules ``names`` and make one Adam step."""
        leaves = [(m, k) for m in names for k in self.p[m]]
        grads = torch.autograd.grad(loss, [self.p[m][k] for m, k in leaves])
        norm = sum((g**2).sum() for g in grads).sqrt()
        factor = min(1.0, self.clip / (norm.item() + 1e-6))
        for (m, k), grad in zip(leaves, grads, strict=True):
            g = factor * grad
            self.first[m][k] = 0.9 * self.first[m][k] + 0.1 * g
            self.second[m][k] = 0.999 * self.second[m][k] + 0.001 * g**2
            mean = self.first[m][k] / (1.0 - 0.9**self.count)
            root = (self.second[m][k] / (1.0 - 0.999**self.count)).sqrt()
            rate = 0.3 * lr if m == "encoder" else lr
            self.p[m][k] = (self.p[m][k] - rate * mean / (root + eps)).detach()
        return norm

    def leaf(self, names):
        for m in names:
            self.p[m] = {k: v.detach().requires_grad_() for k, v in self.p[m].items()}

    def update(self, batch):
        self.count += 1
        b, h = batch.reward.shape
        trained = [m for m in self.p if m not in ("policy", "target_q")]
        heads = torch.randperm(3)[:2]
        noise = torch.randn(b, h, 2, dtype=torch.float64)
        y, latent = self.by_hand.td_targets(self.p, batch, discount=0.95, heads=heads, noise=noise)
        self.leaf(trained)
        parts, latents = self.by_hand.losses(self.p, batch, y, latent)
        loss = 20.0 * parts["consistency"] + 0.1 * parts["reward"] + 0.1 * parts["value"]
        loss = loss + parts["termination"]
        norm = self.adam(trained, loss, 3e-4, 1e-8)
        if self.policy_latents == "encoded":
            obs = batch.obs["state"][:, :-1]
            latents = self.by_hand.mlp(self.p["encoder"], obs, simnorm=True).unbind(1)
        policy_norm = self.update_policy(torch.stack(tuple(latents), 1).detach())
        for k, v in self.p["q"].items():
            self.p["target_q"][k] = 0.99 * self.p["target_q"][k] + 0.01 * v
        return {"loss": loss.detach(), "norm": norm, "policy_norm": policy_norm}

    def update_policy(self, latents):
        b, steps = latents.shape[:2]
        heads = torch.randperm(3)[:2]
        noise = torch.randn(b, steps, 2, dtype=torch.float64)
        self.leaf(["policy"])
        action, density = self.by_hand.policy(self.p["policy"], latents, noise)
        q = sum(self.by_hand.q(self.p["q"], int(i), latents, action) for i in heads) / 2.0
        spread = torch.quantile(q[:, 0].detach(), 0.95) - torch.quantile(q[:, 0].detach(), 0.05)
        self.scale = 0.99 * self.scale + 0.01 * max(1.0, spread.item())
        loss = 0.0
        for t in range(steps):
            gain = 1e-4 * -2.0 * density[:, t] + q[:, t] / self.scale
            loss = loss - 0.5**t * gain.mean() / steps
        return self.adam(["policy"], loss, 3e-4, 1e-5)


@pytest.mark.parametrize(
    ("clip", "policy_latents"), [(20.0, "rollout"), (0.1, "rollout"), (20.0, "encoded")]
)
def test_two_updates_equal_two_updates_written_by_hand(  # noqa: PLR0917
    make_agent, make_batch, config, by_hand, clip, policy_latents
):
    settings = replace(config, grad_clip=clip, policy_latents=policy_latents)
    agent = make_agent(settings, dtype=torch.float64)
    hand = HandMade(by_hand, agent, clip, policy_latents)
    batches = [make_batch(seed=0), make_batch(seed=1)]

    torch.manual_seed(2)
    metrics = [agent.update(batch) for batch in batches]
    torch.manual_seed(2)
    expected = [hand.update(batch) for batch in batches]

    for got, want in zip(metrics, expected, strict=True):
        torch.testing.assert_close(got["train/total_loss"], want["loss"], **EXACT)
        torch.testing.assert_close(got["optim/grad_norm"], want["norm"], **EXACT)
        torch.testing.assert_close(got["train/policy_grad_norm"], want["policy_norm"], **EXACT)
    for module, parameters in by_hand.all_parameters(agent.model, agent.policy).items():
        for name, value in parameters.items():
            torch.testing.assert_close(
                value, hand.p[module][name].detach(), **EXACT, msg=f"{module}.{name}"
            )
    assert agent.scale.value.item() == pytest.approx(hand.scale, rel=1e-12)


def test_an_update_leaves_the_model_in_evaluation_mode_with_every_q_function_trainable(
    make_agent, make_batch32
):
    agent = make_agent()

    agent.update(make_batch32())

    assert not agent.model.training
    assert all(p.requires_grad for p in agent.model.q.parameters())
    assert not any(p.requires_grad for p in agent.model.target_q.parameters())


def test_an_update_evaluates_the_loss_and_the_policys_values_with_dropout(make_agent, make_batch32):
    agent, modes = make_agent(), []
    draw = agent.model.q.dropout_mask
    agent.model.q.dropout_mask = lambda num, rows: (
        modes.append((num, agent.model.q.training)) or draw(num, rows)
    )

    agent.update(make_batch32())

    assert modes == [(agent.model.q.num, True), (2, True)]


def test_the_policy_learns_on_the_latents_of_the_unperturbed_model(make_agent, make_batch32):
    """A second evaluation of the closure elsewhere changes nothing of what the policy is given."""
    plain, twice = make_agent(), make_agent()
    given = {}
    for name, agent in (("plain", plain), ("twice", twice)):
        agent._update_policy = lambda latents, name=name: given.update({name: latents}) or {}
    once = twice.optimizer._gradient

    def perturbed_then_back(evaluate):
        loss = once(evaluate)
        weight = twice.model.encoder[0].linear.weight
        weight.add_(1.0)
        evaluate()
        weight.sub_(1.0)
        return loss

    twice.optimizer._gradient = perturbed_then_back

    for agent in (plain, twice):
        torch.manual_seed(0)
        agent.update(make_batch32())

    assert torch.equal(given["plain"], given["twice"])


@pytest.mark.parametrize("mode", ["explore", "eval", "policy"])
def test_actions_lie_in_the_box_and_follow_from_the_generator_alone(make_agent, mode):
    agent = make_agent()
    obs, state = {"state": torch.randn(4, 3)}, agent.initial_state(4)
    torch_state = torch.get_rng_state()

    def act(seed):
        generator = torch.Generator().manual_seed(seed)
        return agent.act(obs, state, mode=mode, generator=generator)

    action, after = act(0)
    again, _ = act(0)
    other, _ = act(1)

    assert action.shape == (4, 2)
    assert action.abs().max() <= 1.0
    assert torch.equal(action, again)
    assert not torch.equal(action, other)
    assert after["mean"].shape == (4, 3, 2)
    assert after["value"].shape == (4,)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert not action.requires_grad


def test_exploration_adds_noise_to_the_action_and_to_nothing_else(make_agent):
    agent = make_agent()
    obs, state = {"state": torch.randn(4, 3)}, agent.initial_state(4)

    calm, calm_state = agent.act(obs, state, mode="eval", generator=torch.Generator())
    noisy, noisy_state = agent.act(obs, state, mode="explore", generator=torch.Generator())

    assert not torch.equal(calm, noisy)
    assert torch.equal(calm_state["mean"], noisy_state["mean"])
    assert torch.equal(calm_state["value"], noisy_state["value"])


def test_a_discrete_agent_acts_in_one_hot_choices_and_learns(
    make_agent, make_batch32, discrete_spec
):
    agent = make_agent(spec=discrete_spec)
    batch = make_batch32()
    choice = torch.nn.functional.one_hot(torch.arange(12).reshape(4, 3) % 4, 4).float()

    metrics = agent.update(replace(batch, action=choice))
    state = agent.initial_state(2)
    for mode in ("explore", "eval", "policy"):
        action, _ = agent.act(
            {"state": torch.randn(2, 3)}, state, mode=mode, generator=torch.Generator()
        )
        torch.testing.assert_close(action.sort(-1).values, torch.eye(4)[3].expand(2, -1))

    assert all(torch.as_tensor(value).isfinite() for value in metrics.values())


def test_resetting_makes_new_only_the_rows_whose_episode_begins(make_agent):
    agent = make_agent()
    obs = {"state": torch.randn(3, 3)}
    _, state = agent.act(obs, agent.initial_state(3), mode="eval", generator=torch.Generator())

    fresh = agent.reset_state(state, torch.tensor([False, True, False]))

    for name in ("mean", "value"):
        assert torch.equal(fresh[name][[0, 2]], state[name][[0, 2]])
        assert torch.equal(fresh[name][1], agent.initial_state(1)[name][0])
        assert state[name][1].abs().sum() > 0


def test_a_restored_agent_continues_bit_for_bit(make_agent, make_batch32, by_hand):
    agent, other = make_agent(), make_agent(seed=5)
    batch = make_batch32()
    agent.update(batch)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)

    other.load_state_dict(torch.load(file, weights_only=True))
    results = []
    for each in (agent, other):
        torch.manual_seed(1)
        metrics = each.update(batch)
        action, _ = each.act(
            {"state": torch.ones(2, 3)},
            each.initial_state(2),
            mode="explore",
            generator=torch.Generator().manual_seed(0),
        )
        results.append((metrics, action, by_hand.all_parameters(each.model, each.policy)))

    (metrics, action, weights), (other_metrics, other_action, other_weights) = results
    assert metrics == other_metrics
    assert torch.equal(action, other_action)
    for module, parameters in weights.items():
        for name, value in parameters.items():
            assert torch.equal(value, other_weights[module][name]), f"{module}.{name}"
    assert torch.equal(agent.scale.value, other.scale.value)


def test_the_probe_loss_is_the_training_loss_without_dropout(make_agent, make_batch32, config):
    agent = make_agent(replace(config, dropout=0.5))
    batch = make_batch32()
    state = torch.get_rng_state()

    probe = agent.probe_loss(batch)
    values = [probe.loss() for _ in range(2)]

    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(values[0], values[1])
    assert values[0].requires_grad
    targets = agent.model.targets(batch, agent.policy)
    torch.set_rng_state(state)
    targets = agent.model.targets(batch, agent.policy)
    assert torch.equal(values[0], agent.model.loss(batch, targets).loss)


def test_the_probe_loss_names_every_trained_parameter_once_and_leaves_no_gradient(
    make_agent, make_batch32
):
    agent = make_agent()

    probe = agent.probe_loss(make_batch32())
    probe.loss()

    listed = [p for parameters in probe.modules.values() for p in parameters]
    trained = [p for group in agent.optimizer.param_groups for p in group["params"]]
    assert set(probe.modules) == {"encoder", "dynamics", "reward", "q", "termination"}
    assert len(listed) == len(set(listed)) == len(trained)
    assert set(listed) == set(trained)
    assert all(p.grad is None for p in agent.model.parameters())


def test_measurements_change_nothing(make_agent, make_batch32, by_hand):
    agent = make_agent()
    batch = make_batch32()
    before = by_hand.all_parameters(agent.model, agent.policy)
    state = torch.get_rng_state()

    latent = agent.posterior(batch)
    value = agent.value(latent[:, 0])
    prediction = agent.predict(latent[:, 0], batch.action[:, 0])

    assert latent.shape == (4, 4, 16)
    assert value.shape == prediction.reward.shape == prediction.cont.shape == (4,)
    assert not latent.requires_grad
    assert not value.requires_grad
    assert not prediction.latent.requires_grad
    assert torch.equal(agent.value(latent[:, 0]), value)
    assert torch.equal(state, torch.get_rng_state())
    for module, parameters in by_hand.all_parameters(agent.model, agent.policy).items():
        assert all(torch.equal(v, before[module][name]) for name, v in parameters.items())


def test_a_prediction_is_the_step_that_the_loss_trains(make_agent, by_hand):
    agent = make_agent(dtype=torch.float64)
    latent = torch.randn(5, 16, dtype=torch.float64)
    action = torch.randn(5, 2, dtype=torch.float64)

    prediction = agent.predict(latent, action)

    p = by_hand.all_parameters(agent.model, agent.policy)
    pair = torch.cat([latent, action], -1)
    after = by_hand.mlp(p["dynamics"], pair, simnorm=True)
    reward = by_hand.decode(by_hand.mlp(p["reward"], pair))
    cont = 1.0 - torch.sigmoid(by_hand.mlp(p["termination"], after)[..., 0])
    torch.testing.assert_close(prediction.latent, after, **EXACT)
    torch.testing.assert_close(prediction.reward, reward, **EXACT)
    torch.testing.assert_close(prediction.cont, cont, **EXACT)


def test_without_a_termination_head_the_task_always_continues(make_agent, config):
    agent = make_agent(replace(config, episodic=False))

    assert torch.equal(agent.predict(torch.rand(3, 16), torch.rand(3, 2)).cont, torch.ones(3))


def test_the_value_is_the_mean_over_all_heads_of_sixteen_actions(make_agent, by_hand):
    agent = make_agent(dtype=torch.float64)
    latent = torch.randn(3, 16, dtype=torch.float64)

    value = agent.value(latent)

    p = by_hand.all_parameters(agent.model, agent.policy)
    noise = torch.randn(16, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    total = 0.0
    for row in noise:
        action, _ = by_hand.policy(p["policy"], latent, row)
        total = total + sum(by_hand.q(p["q"], head, latent, action) for head in range(3))
    torch.testing.assert_close(value, total / 48.0, **EXACT)


def test_the_norm_of_the_weights_is_that_of_all_trained_ones(make_agent):
    agent = make_agent(dtype=torch.float64)

    norm = agent.param_norm()

    trained = [p for m in agent.model.trained_modules().values() for p in m.parameters()]
    expected = sum(p.detach().square().sum() for p in trained).sqrt()
    torch.testing.assert_close(norm, expected, **EXACT)


def test_an_agent_asks_for_slices_of_its_horizon(make_agent, config):
    agent = make_agent(replace(config, horizon=5, batch_size=7))

    assert (agent.sequence_length, agent.batch_size) == (5, 7)
    assert agent.initial_state(2)["mean"].shape == (2, 5, 2)


def test_all_entries_of_an_observation_reach_the_agent(make_agent):
    spec = EnvSpec(
        obs={"velocity": (2,), "height": (1,)}, action=Continuous(dim=2), episode_length=50
    )
    agent = make_agent(spec=spec)
    velocity, height = torch.randn(2, 2), torch.randn(2, 1)

    def act(obs):
        state = agent.initial_state(2)
        return agent.act(obs, state, mode="eval", generator=torch.Generator())[0]

    action = act({"velocity": velocity, "height": height})
    assert torch.equal(action, act({"height": height, "velocity": velocity}))
    assert not torch.equal(action, act({"velocity": velocity, "height": height + 1.0}))
