"""What holds for every agent that learns in imagination, whatever its world model."""

import copy
import math

import numpy as np
import pytest
import torch

import mbrl_flat.agents.imagination_agent as module
from mbrl_flat.agents.imagination import flatten_states
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.rollout_probe import RolloutProbe
from mbrl_flat.diagnostics.sharpness_measures import CategoricalGaussNewton
from mbrl_flat.diagnostics.sharpness_probe import SharpnessProbe
from mbrl_flat.errors import NonFiniteError, UserError
from mbrl_flat.interfaces import Inspectable
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

CONTROL = EnvSpec(
    obs={"image": (3, 16, 16)},
    action=Continuous(dim=2),
    episode_length=50,
    images=frozenset({"image"}),
)


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    nested = isinstance(value, (dict, list, tuple))
    return [tensor for item in items for tensor in tensors(item)] if nested else []


def weights(agent):
    state = agent.state_dict()
    return tensors({"model": state["model"], "behaviour": state["actor_critic"]})


def equal(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, b) for a, b in zip(left, right, strict=True)
    )


def learn(agent, make_batch, updates, first=0):
    rows = []
    for i in range(first, first + updates):
        torch.manual_seed(1000 + i)
        rows.append(agent.update(make_batch(agent, seed=i)))
    return rows


def test_rewards_that_are_not_finite_stop_the_run_or_are_skipped(
    name, build, make_batch, monkeypatch
):
    finite = module.imagine

    def broken(*args):
        imagined = finite(*args)
        return imagined._replace(reward=torch.full_like(imagined.reward, float("nan")))

    monkeypatch.setattr(module, "imagine", broken)
    with pytest.raises(NonFiniteError, match=r"gradient of the (actor|behaviour)"):
        learn(build(name), make_batch, 1)

    agent = build(name, on_nonfinite="skip")
    trained = [p for bounded in agent.optimizers.values() for p in bounded.params]
    before = [p.detach().clone() for p in trained]
    (row,) = learn(agent, make_batch, 1)
    assert row["optim/skipped"] == 1.0
    assert all(map(torch.equal, trained, before))
    assert all(tensor.isfinite().all() for tensor in weights(agent))

    monkeypatch.setattr(module, "imagine", finite)
    learn(agent, make_batch, 1)
    assert not all(map(torch.equal, trained, before))
    assert all(tensor.isfinite().all() for tensor in weights(agent))


def test_an_update_is_finite_and_moves_every_module(name, build, make_batch):
    agent = build(name)
    modules = {**agent.model.trained_modules(), "actor": agent.actor_critic.actor}
    before = {key: copy.deepcopy(value.state_dict()) for key, value in modules.items()}

    metrics = learn(agent, make_batch, 2)[-1]

    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert {"encoder", "dynamics", "reward", "continue", "decoder"} <= modules.keys()
    for key, value in modules.items():
        assert not equal(list(before[key].values()), list(value.state_dict().values())), key


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sam", "random_direction", "vasso"])
def test_radius_zero_is_the_base_optimizer_bit_for_bit_over_100_updates(
    name, method, build, make_batch
):
    base, zero = build(name), build(name, optimizer=method, rho=0.0)
    aside = {"optim/evaluations"}

    for i in range(100):
        ((first,), (second,)) = (learn(agent, make_batch, 1, i) for agent in (base, zero))
        assert {k: float(v) for k, v in first.items() if k not in aside} == {
            k: float(v) for k, v in second.items() if k not in aside
        }, f"update {i}"

    assert equal(weights(base), weights(zero))


@pytest.mark.parametrize(("rho", "evaluations"), [(0.0, 1.0), (1e-30, 2.0)])
def test_a_radius_that_moves_nothing_is_the_base_optimizer_bit_for_bit(
    name, rho, evaluations, build, make_batch
):
    """Five updates; with a radius above 0 all that a second evaluation could change is there."""
    base, flat = build(name), build(name, optimizer="sam", rho=rho)

    learn(base, make_batch, 5)
    rows = learn(flat, make_batch, 5)

    assert equal(weights(base), weights(flat))
    assert [row["optim/evaluations"] for row in rows] == [evaluations] * 5
    assert all(row["optim/perturbed_gap"] == 0.0 for row in rows)


@pytest.mark.parametrize("method", ["sam", "ivon", "msam", "looksam"])
def test_imagination_starts_from_the_same_states_whatever_the_optimizer(
    name, method, build, make_batch, monkeypatch
):
    starts = []
    imagine = module.imagine

    def recorded(model, policy, state, horizon, **rest):
        starts.append(model.features(state).clone())
        return imagine(model, policy, state, horizon, **rest)

    monkeypatch.setattr(module, "imagine", recorded)

    learn(build(name), make_batch, 1)
    learn(build(name, optimizer=method), make_batch, 1)

    assert torch.equal(starts[0], starts[1])


def test_every_evaluation_of_a_step_sees_the_same_targets(name, build, make_batch):
    agent = build(name)
    batch = make_batch(agent)
    targets = agent.model.targets(batch)

    losses = [agent.model.loss(batch, targets) for _ in range(2)]

    assert torch.equal(losses[0].loss, losses[1].loss)
    states = agent.model.observe_batch(batch, targets)
    for key, value in losses[0].states.items():
        assert torch.equal(value, states[key]), key
        assert not value.requires_grad


def test_the_image_coefficient_weighs_the_image_error_alone(name, build, make_batch):
    once, thrice = build(name), build(name, overrides=["agent.config.image_coef=3.0"])

    (plain,), (heavy,) = learn(once, make_batch, 1), learn(thrice, make_batch, 1)

    (key,) = {"train/image_loss", "train/image_reconstruction_loss"} & plain.keys()
    assert float(heavy[key]) == pytest.approx(float(plain[key]), rel=1e-5)
    total = float(plain["train/total_loss"]) + 2.0 * float(plain[key])
    assert float(heavy["train/total_loss"]) == pytest.approx(total, rel=1e-5)


def test_saving_and_loading_is_exact(name, build, make_batch):
    agent, other = build(name, optimizer="sam"), build(name, optimizer="sam", seed=1)
    learn(agent, make_batch, 2)

    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    learn(agent, make_batch, 1, first=2)
    learn(other, make_batch, 1, first=2)

    assert equal(weights(agent), weights(other))
    assert equal(tensors(agent.state_dict()), tensors(other.state_dict()))


def test_a_checkpoint_of_another_agent_is_refused_before_anything_changes(name, build):
    agent = build(name)
    before = [tensor.clone() for tensor in weights(agent)]

    with pytest.raises(UserError, match=f"not of '{name}'"):
        agent.load_state_dict({"model": {}, "policy": {}})

    assert equal(before, weights(agent))


def test_an_image_of_an_odd_size_is_refused_in_one_sentence(name, build):
    spec = EnvSpec(
        obs={"image": (3, 60, 60)},
        action=Discrete(num=4),
        episode_length=50,
        images=frozenset({"image"}),
    )

    with pytest.raises(UserError, match="64"):
        build(name, spec)


def observation(agent, num, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        key: torch.randint(256, (num, *shape), generator=g, dtype=torch.uint8)
        for key, shape in agent.spec.obs.items()
    }


def act(agent, steps, *, num=2, mode="explore", seed=0, state=None):
    generator = torch.Generator().manual_seed(seed)
    state = state or agent.initial_state(num)
    actions = []
    for t in range(steps):
        action, state = agent.act(
            observation(agent, num, seed=t), state, mode=mode, generator=generator
        )
        actions.append(action)
    return torch.stack(actions), state


@pytest.mark.parametrize("mode", ["explore", "eval", "policy"])
def test_acting_draws_from_its_generator_alone(name, mode, build):
    agent = build(name)
    torch.manual_seed(7)
    before = torch.get_rng_state()

    first, state = act(agent, 4, mode=mode)
    second, _ = act(agent, 4, mode=mode)

    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.sum(-1), torch.ones(4, 2))
    assert state["value"].shape == (2,)
    assert all(value.shape[0] == 2 for value in state.values())


def test_continuous_actions_stay_in_their_box(controller, build):
    actions, _ = act(build(controller, CONTROL), 5)

    assert actions.abs().max() <= 1.0
    assert actions.shape == (5, 2, 2)


def test_continuous_control_learns_as_well(controller, build, make_batch):
    metrics = learn(build(controller, CONTROL), make_batch, 1)[0]

    assert all(math.isfinite(float(value)) for value in metrics.values())


def test_a_state_that_was_reset_acts_like_a_new_one(name, build):
    agent = build(name)
    _, used = act(agent, 3)

    reset = agent.reset_state(used, torch.tensor([True, True]))

    assert torch.equal(act(agent, 3, state=reset, seed=5)[0], act(agent, 3, seed=5)[0])


def test_the_policy_of_an_environment_does_not_depend_on_its_neighbours(name, build):
    agent = build(name)
    obs = observation(agent, 3)
    state = agent.initial_state(3)
    fixed = {"mode": "eval", "generator": torch.Generator().manual_seed(0)}

    _, after = agent.act(obs, state, **fixed)
    alone = {key: value[:1] for key, value in obs.items()}
    fixed["generator"] = torch.Generator().manual_seed(0)
    _, single = agent.act(alone, agent.initial_state(1), **fixed)

    for key in after:
        if key not in ("action", "value", "stoch"):
            torch.testing.assert_close(after[key][:1].float(), single[key].float(), msg=key)


@torch.no_grad()
def test_imagining_many_states_at_once_is_imagining_each(name, build, make_batch):
    agent = build(name)
    batch = make_batch(agent)
    states = agent.model.observe_batch(batch, agent.model.targets(batch))
    states = flatten_states({key: value[:, 1:] for key, value in states.items()})
    num, horizon = 5, 4

    def rollout(state):
        features = [agent.model.features(state)]
        state = agent.model.begin_rollout(state, horizon)
        for _ in range(horizon):
            action = agent.actor_critic.actor.mode(features[-1])
            state = agent.model.imagine(state, action, most_likely=True)
            features.append(agent.model.features(state))
        return torch.stack(features, 1)

    together = rollout({key: value[:num].clone() for key, value in states.items()})

    for i in range(num):
        alone = rollout({key: value[i : i + 1].clone() for key, value in states.items()})
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_changing_a_later_observation_changes_no_earlier_state(name, build, make_batch):
    agent = build(name)
    batch = make_batch(agent)
    targets = agent.model.targets(batch)
    before = agent.model.features(agent.model.observe_batch(batch, targets)).clone()

    batch.obs["image"][:, -1] = 255 - batch.obs["image"][:, -1]
    batch.action[:, -1] = batch.action[:, -1].roll(1, -1)
    after = agent.model.features(agent.model.observe_batch(batch, targets))

    torch.testing.assert_close(before[:, :-1], after[:, :-1], rtol=0.0, atol=1e-6)
    assert not torch.equal(before[:, -1], after[:, -1])


@torch.no_grad()
def test_nothing_crosses_the_start_of_an_episode(name, build, make_batch):
    agent = build(name)
    batch = make_batch(agent)
    start = agent.sequence_length // 2
    assert batch.is_first is not None
    batch.is_first[:] = False
    batch.is_first[:, start] = True
    targets = agent.model.targets(batch)
    before = agent.model.features(agent.model.observe_batch(batch, targets)).clone()

    batch.obs["image"][:, :start] = 255 - batch.obs["image"][:, :start]
    batch.action[:, :start] = batch.action[:, :start].roll(1, -1)
    after = agent.model.features(agent.model.observe_batch(batch, targets))

    torch.testing.assert_close(before[:, start:], after[:, start:], rtol=0.0, atol=1e-6)
    assert not torch.equal(before[:, :start], after[:, :start])


def test_half_precision_is_close_and_its_weights_stay_in_full(name, build, make_batch):
    path = "agent.config.imagination.precision=bfloat16"
    full, half = build(name), build(name, overrides=[path])

    (first,), (second,) = learn(full, make_batch, 1), learn(half, make_batch, 1)

    expected = float(first["train/total_loss"])
    assert float(second["train/total_loss"]) == pytest.approx(expected, rel=0.05)
    assert [tensor.dtype for tensor in weights(half)] == [tensor.dtype for tensor in weights(full)]


def test_packed_states_come_back(name, build, make_batch):
    agent = build(name)
    batch = make_batch(agent)
    states = agent.model.observe_batch(batch, agent.model.targets(batch))

    again = agent.model.unpack(agent.model.pack(states))

    features = agent.model.features
    assert torch.equal(features(states), features(again))
    assert torch.equal(features(states), agent.features(agent.model.pack(states)))


def filled(spec, episodes=6, length=14):
    replay = Replay(spec, 400, heldout_fraction=0.4, seed=1)
    rng = np.random.default_rng(0)

    def frame():
        return {k: rng.integers(256, size=shape).astype(np.uint8) for k, shape in spec.obs.items()}

    for _ in range(episodes):
        replay.begin(0, frame())
        for t in range(length):
            action = np.eye(spec.action.size, dtype=np.float32)[rng.integers(spec.action.size)]
            done = t == length - 1
            replay.add(0, action, float(rng.normal()), frame(), terminated=done, done=done)
    return replay


def test_probes_measure_it_and_leave_no_trace(name, build, make_batch):
    agent = build(name)
    learn(agent, make_batch, 1)
    assert isinstance(agent, Inspectable)
    replay = filled(agent.spec)
    twin = copy.deepcopy(agent.state_dict())
    torch.manual_seed(3)
    stream = torch.get_rng_state()

    sharpness = SharpnessProbe(
        batch_size=2, iterations=2, curvature=[CategoricalGaussNewton(iterations=2)]
    )(agent, replay)
    rollout = RolloutProbe(horizon=3, batch_size=4)(agent, replay)

    assert equal(tensors(twin), tensors(agent.state_dict()))
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(p.grad is None for p in agent.actor_critic.parameters())
    assert math.isfinite(sharpness["probe/sharpness/lambda_max"])
    for part in ("encoder", "dynamics", "reward", "continue", "decoder"):
        assert f"probe/sharpness/{part}/lambda_max" in sharpness
    for part in ("encoder/", "dynamics/", "reward/", "continue/", ""):
        assert sharpness[f"probe/sharpness/{part}gauss_newton"] > 0.0
    assert sharpness["probe/sharpness/decoder/gauss_newton"] == 0.0
    for kind in ("latent_error", "reference_error", "termination_brier", "termination_auc"):
        assert f"probe/rollout/{kind}_3" in rollout
    assert all(math.isfinite(value) for value in rollout.values())


def test_the_heads_apart_cost_what_they_cost_within_the_loss(name, build, make_batch):
    agent = build(name)
    learn(agent, make_batch, 1)
    batch = make_batch(agent, seed=3)
    torch.manual_seed(4)
    categorical = agent.probe_loss(batch).categorical
    torch.manual_seed(4)
    metrics = agent.model.loss(batch, agent.model.targets(batch)).metrics

    found = categorical.loss(categorical.outputs())

    expected = metrics["train/reward_loss"] + metrics["train/continue_loss"]
    torch.testing.assert_close(found, expected)


def test_the_state_is_decoded_to_images_in_the_unit_range(name, build, make_batch):
    published = EnvSpec(
        obs={"image": (3, 64, 64)},
        action=Discrete(num=4),
        episode_length=50,
        images=frozenset({"image"}),
    )
    agent = build(name, published)
    latent = agent.posterior(make_batch(agent))[:, 0]

    decoded = agent.decode(latent)["image"]

    assert decoded.shape == (agent.batch_size, 3, 64, 64)
    assert float(decoded.min()) >= 0.0
    assert float(decoded.max()) <= 1.0
