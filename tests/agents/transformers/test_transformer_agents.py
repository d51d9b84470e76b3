"""STORM and TWISTER as agents: any optimizer, one randomness, nothing left behind."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mbrl_flat.diagnostics.guard import preserve_state
from mbrl_flat.diagnostics.hvp import Hessian
from mbrl_flat.errors import UserError
from mbrl_flat.optim import OPTIMIZERS
from mbrl_flat.specs import Continuous, Discrete, EnvSpec


def assert_same(a, b, path="state"):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{path}.{index}")
    else:
        assert a == b, path


def trained(agent, make_batch, updates, seed=0):
    torch.manual_seed(seed)
    rows = [agent.update(make_batch(begins=[(1, 4)], seed=step)) for step in range(updates)]
    return [{k: float(v) for k, v in row.items() if k.startswith("train/")} for row in rows]


@pytest.mark.parametrize(
    ("method", "updates"),
    [
        ("sam", 10),
        ("random_direction", 5),
        pytest.param("sam", 100, marks=pytest.mark.slow),
        pytest.param("asam", 100, marks=pytest.mark.slow),
    ],
)
def test_without_a_radius_updates_are_those_of_adam_bit_for_bit(
    name, method, updates, make_agent, make_batch
):
    plain, flat = make_agent(name), make_agent(name, method, {"rho": 0.0})

    expected, got = trained(plain, make_batch, updates), trained(flat, make_batch, updates)

    assert expected == got
    assert_same(plain.model.state_dict(), flat.model.state_dict())
    assert_same(plain.actor_critic.state_dict(), flat.actor_critic.state_dict())


def test_a_radius_changes_the_weights(name, make_agent, make_batch):
    plain, flat = make_agent(name), make_agent(name, "sam", {"rho": 0.1})

    trained(plain, make_batch, 2)
    trained(flat, make_batch, 2)

    pairs = zip(plain.model.parameters(), flat.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


SETTINGS = {"entropy_sgd": {"inner_lr": 1e-6}}
"""Where the defaults don't fit a loss that sums over pixels."""


def seen_starts(agent, batch, monkeypatch):
    """States that behaviour learning is given in one update."""
    seen = []
    monkeypatch.setattr(agent, "_learn_behaviour", lambda batch, states: seen.append(states) or {})
    torch.manual_seed(7)
    metrics = agent.update(batch)
    assert torch.isfinite(torch.as_tensor(metrics["train/total_loss"]))
    return seen[0]


@pytest.mark.filterwarnings("ignore:sam_on perturbs")
@pytest.mark.parametrize("method", sorted(OPTIMIZERS))
def test_imagination_starts_at_the_same_states_whatever_the_optimizer(
    name, method, make_agent, make_batch, monkeypatch
):
    batch = make_batch(begins=[(1, 4)])
    expected = seen_starts(make_agent(name), batch, monkeypatch)

    other = make_agent(name, method, SETTINGS.get(method))
    assert_same(seen_starts(other, batch, monkeypatch), expected)


@pytest.mark.parametrize("method", ["adam", "sam", "msam", "entropy_sgd"])
def test_statistics_of_batch_norm_move_once_in_an_update(method, make_agent, make_batch):
    def statistics(agent):
        layers = [m for m in agent.model.modules() if isinstance(m, _BatchNorm)]
        return [(m.running_mean.clone(), int(m.num_batches_tracked)) for m in layers]

    agent, plain = make_agent("storm", method, SETTINGS.get(method)), make_agent("storm")
    trained(agent, make_batch, 1)
    trained(plain, make_batch, 1)

    assert [count for _, count in statistics(agent)] == [1] * 4
    if OPTIMIZERS[method].clean_first:
        assert_same(statistics(agent), statistics(plain))


def test_layer_norm_is_an_option_without_statistics(make_agent, make_batch):
    agent = make_agent("storm", norm="layer")

    trained(agent, make_batch, 1)

    assert not any(isinstance(module, _BatchNorm) for module in agent.model.modules())


def test_the_loss_is_the_same_each_time_it_is_evaluated(name, make_agent, make_batch):
    model, batch = make_agent(name).model.eval(), make_batch()
    targets = model.targets(batch)

    assert torch.equal(model.loss(batch, targets).loss, model.loss(batch, targets).loss)


def test_states_of_the_loss_are_those_of_observing_the_batch(name, make_agent, make_batch):
    model, batch = make_agent(name).model.train(), make_batch(begins=[(1, 4)])
    targets = model.targets(batch)

    observed = model.observe_batch(batch, targets)

    assert_same(model.loss(batch, targets).states, observed)


def test_only_names_the_modules_of_the_model(name, make_agent):
    names = {"encoder", "dynamics", "reward", "continue", "decoder"}
    expected = names | ({"contrastive"} if name == "twister" else set())

    assert set(make_agent(name).model.trained_modules()) == expected
    for module in expected:
        make_agent(name, "sam", {"only": [module]})
    every = {p for m in make_agent(name).model.trained_modules().values() for p in m.parameters()}
    assert len(every) == len(list(make_agent(name).model.parameters()))


def test_the_probe_loss_can_be_differentiated_twice_and_leaves_no_trace(
    name, make_agent, make_batch
):
    agent = make_agent(name)
    trained(agent, make_batch, 2)
    before = copy.deepcopy(agent.state_dict())
    stream = torch.get_rng_state()

    with preserve_state(agent.model):
        subject = agent.probe_loss(make_batch(num=2, seed=9))
        params = [p for params in subject.modules.values() for p in params]
        hessian = Hessian(subject.loss, params)
        one = torch.randn(hessian.size, generator=torch.Generator().manual_seed(0))
        other = torch.randn(hessian.size, generator=torch.Generator().manual_seed(1))
        left, right = other @ hessian(one), one @ hessian(other)

    assert torch.isfinite(left)
    torch.testing.assert_close(left, right, rtol=2e-2, atol=1e-2 * abs(float(left)))
    assert_same(agent.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), stream)


def test_probes_take_batches_of_any_size(name, make_agent, make_batch):
    agent = make_agent(name)
    short = make_batch(num=5, length=2)

    assert torch.isfinite(agent.probe_loss(short).loss())
    latent = agent.posterior(short)
    prediction = agent.predict(latent[:, 0], short.action[:, 0])
    assert latent.shape[:2] == (5, 3)
    assert prediction.latent.shape == latent[:, 1].shape
    assert agent.value(latent[:, 0]).shape == (5,)


def test_a_restored_agent_continues_bit_for_bit(name, make_agent, make_batch):
    agent = make_agent(name, "sam", {"rho": 0.05})
    trained(agent, make_batch, 2)
    twin = make_agent(name, "sam", {"rho": 0.05})
    twin.load_state_dict(copy.deepcopy(agent.state_dict()))

    assert trained(agent, make_batch, 2, seed=3) == trained(twin, make_batch, 2, seed=3)
    assert_same(agent.state_dict(), twin.state_dict())


def test_a_checkpoint_of_the_other_agent_is_refused(name, make_agent):
    other = "storm" if name == "twister" else "twister"

    with pytest.raises(UserError, match=f"of the agent '{other}', not of '{name}'"):
        make_agent(name).load_state_dict(make_agent(other).state_dict())


def acted(agent, steps=3, seed=0, mode="explore"):
    generator = torch.Generator().manual_seed(seed)
    images = torch.Generator().manual_seed(8)
    state, actions = agent.initial_state(2), []
    for step in range(steps):
        obs = {"image": torch.randint(0, 256, (2, 3, 16, 16), generator=images).to(torch.uint8)}
        action, state = agent.act(obs, state, mode=mode, generator=generator)
        state = agent.reset_state(state, torch.tensor([step == 1, False]))
        actions.append(action)
    return torch.stack(actions), state


@pytest.mark.parametrize("mode", ["explore", "eval", "policy"])
def test_actions_follow_from_the_generator_alone(name, mode, make_agent):
    agent = make_agent(name)
    stream = torch.get_rng_state()

    actions, state = acted(agent, mode=mode)

    assert torch.equal(actions, acted(agent, mode=mode)[0])
    assert torch.equal(torch.get_rng_state(), stream)
    assert actions.sum(-1).unique().tolist() == [1.0]
    assert {key: v.shape for key, v in state.items()} == {
        key: v.shape for key, v in agent.initial_state(2).items()
    }


def test_storm_acts_on_the_frame_or_on_what_it_had_predicted(make_agent, make_batch):
    """A changed frame changes what the policy sees at once, or one step later."""
    batch = make_batch(num=1, length=2)
    other = replace(batch, obs={"image": 255 - batch.obs["image"]})

    def seen(act_on, batch):
        agent = make_agent("storm", act_on=act_on)
        with torch.no_grad():
            agent.model.encoder.logits.weight.mul_(30.0)
        state = agent.model.initial_state(1)
        generator = torch.Generator().manual_seed(0)
        obs, first = {"image": batch.obs["image"][:, 0]}, torch.tensor([True])
        state = agent.model.observe(state, torch.zeros(1, 3), obs, first, generator=generator)
        return agent.model.features(state)

    assert torch.equal(seen("prediction", batch), seen("prediction", other))
    assert not torch.equal(seen("frame", batch), seen("frame", other))


def test_without_its_weight_the_contrastive_loss_costs_nothing(make_agent, make_batch):
    model, batch = make_agent("twister", contrastive_coef=0.0).model, make_batch()
    targets = model.targets(batch)

    metrics = model.loss(batch, targets).metrics

    assert "view" not in targets
    assert "train/contrastive_loss" not in metrics
    assert "contrastive" not in model.trained_modules()


@pytest.mark.parametrize("free_nats", [0.0, 1e3])
def test_free_nats_bound_each_kl_from_below(name, free_nats, make_agent, make_batch):
    model, batch = make_agent(name, free_nats=free_nats).model.eval(), make_batch()

    metrics = model.loss(batch, model.targets(batch)).metrics

    expected = max(free_nats, float(metrics["train/kl"]))
    assert float(metrics["train/dynamics_loss"]) == pytest.approx(expected)
    assert float(metrics["train/representation_loss"]) == pytest.approx(expected)


def test_twister_clips_each_step_and_storm_the_mean(make_agent, make_batch):
    """With free nats at the mean KL, clipping each step can only raise the mean."""
    batch = make_batch()
    losses = {}
    for agent in ("storm", "twister"):
        model = make_agent(agent, free_nats=0.0).model.eval()
        torch.manual_seed(0)
        targets = model.targets(batch)
        mean = float(model.loss(batch, targets).metrics["train/kl"])
        model.config = replace(model.config, free_nats=mean)
        losses[agent] = float(model.loss(batch, targets).metrics["train/dynamics_loss"]) / mean

    assert losses["storm"] == pytest.approx(1.0, rel=1e-6)
    assert losses["twister"] > 1.0 + 1e-4


def test_training_lowers_the_loss_of_a_fixed_batch(name, make_agent, make_batch):
    agent, batch = make_agent(name), make_batch()
    torch.manual_seed(0)

    losses = [float(agent.update(batch)["train/total_loss"]) for _ in range(15)]

    assert losses[-1] < 0.9 * losses[0]


def test_half_precision_trains_and_keeps_weights_and_loss_in_float32(name, make_agent, make_batch):
    imagination = replace(make_agent(name).config, precision="bfloat16")
    agent = make_agent(name, "sam", {"rho": 0.05}, imagination=imagination)

    row = agent.update(make_batch(begins=[(1, 4)]))

    assert {p.dtype for p in agent.model.parameters()} == {torch.float32}
    assert row["train/total_loss"].dtype == torch.float32
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in row.values())
    assert acted(agent)[0].shape == (3, 2, 3)


def test_twister_acts_in_a_box(make_agent, make_batch, spec):
    agent = make_agent("twister", task=replace(spec, action=Continuous(dim=3)))

    row = agent.update(make_batch())
    actions, _ = acted(agent)

    assert torch.isfinite(torch.as_tensor(row["train/actor_loss"]))
    assert actions.abs().max() <= 1.0


def test_storm_refuses_continuous_actions(make_agent, spec):
    with pytest.raises(UserError, match=r"agent=storm chooses among discrete actions.*2 cont"):
        make_agent("storm", task=replace(spec, action=Continuous(dim=2)))


@pytest.mark.parametrize("shape", [(3, 84, 84), (3, 64, 48), (3, 4, 4), (3, 17, 17)])
def test_image_sizes_that_the_encoder_cannot_take_are_refused(name, shape, make_agent, spec):
    task = replace(spec, obs={"image": shape})

    with pytest.raises(UserError, match=f"agent={name} can't take images of {shape[1]} x"):
        make_agent(name, task=task)


@pytest.mark.parametrize("obs", [{"state": (3,)}, {"image": (3, 16, 16), "state": (2,)}])
def test_observations_other_than_one_image_are_refused(name, obs, make_agent):
    task = EnvSpec(obs=obs, action=Discrete(num=2), episode_length=10)

    with pytest.raises(UserError, match=f"agent={name} learns from one image"):
        make_agent(name, task=task)


@pytest.mark.parametrize(
    ("agent", "wrong", "said"),
    [
        ("storm", {"norm": "group"}, "norm"),
        ("storm", {"act_on": "past"}, "act_on"),
        ("storm", {"context": 0}, "context"),
        ("twister", {"min_crop_area": 0.0}, "min_crop_area"),
        ("twister", {"contrastive_steps": 99}, "contrastive_steps"),
        ("twister", {"latent_classes": 1}, "latent_classes"),
    ],
)
def test_settings_that_cannot_be_are_refused(agent, wrong, said, make_agent):
    with pytest.raises(UserError, match=said):
        make_agent(agent, **wrong)
