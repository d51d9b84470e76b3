"""STORM and TWISTER: the cache, the batch and the past change nothing they should not."""

from dataclasses import replace

import pytest
import torch

from mbrl_flat.agents.imagination import flatten_states, imagine
from mbrl_flat.models.kv_cache import KVCache
from mbrl_flat.specs import Continuous


def batch_states(model, batch):
    """Flat posterior states of a batch, in evaluation mode; latents depend on their images."""
    model.eval()
    with torch.no_grad():
        weight = model.encoder.logits.weight
        weight.mul_(100.0 / weight.norm())
    torch.manual_seed(3)
    return flatten_states(model.observe_batch(batch, model.targets(batch)))


def rolled(model, state, actions):
    """Outputs and latents of a rollout with given actions and the most likely latents."""
    state = model.begin_rollout(state, actions.shape[1])
    hidden, latent = [], [state["latent"]]
    for action in actions.unbind(1):
        state = model.imagine(state, action, most_likely=True)
        hidden.append(state["hidden"])
        latent.append(state["latent"])
    return torch.stack(hidden, 1), torch.stack(latent, 1)


def choices(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(4)
    return torch.nn.functional.one_hot(torch.randint(0, 3, shape, generator=generator), 3).to(dtype)


def batch_as(batch, dtype):
    return replace(batch, action=batch.action.to(dtype), reward=batch.reward.to(dtype))


def state_as(state, dtype):
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"]
)


@PRECISIONS
def test_cached_imagination_of_storm_is_the_uncached_forward_pass(
    make_agent, make_batch, dtype, tolerance
):
    model = make_agent("storm").model.to(dtype)
    state = state_as(batch_states(model, batch_as(make_batch(begins=[(1, 4)]), dtype)), dtype)
    actions = choices(len(state["latent"]), 4, dtype=dtype)

    hidden, latent = rolled(model, state, actions)

    tokens = torch.cat([state["past_latent"], latent[:, :-1]], 1)
    moves = torch.cat([state["past_action"], actions], 1)
    valid = torch.cat([state["valid"], torch.ones(len(latent), 4, dtype=torch.bool)], 1)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    mask = (causal & valid[:, None]) | torch.eye(7, dtype=torch.bool)
    with torch.no_grad():
        whole, _ = model.dynamics.sequence(tokens, moves, mask)
    torch.testing.assert_close(hidden, whole[:, 3:], rtol=0.0, atol=tolerance)


@PRECISIONS
def test_cached_imagination_of_twister_is_the_uncached_forward_pass(
    make_agent, make_batch, dtype, tolerance
):
    """From the last step of each subsequence on: the whole subsequence is what came before."""
    model = make_agent("twister").model.to(dtype).eval()
    batch = batch_as(make_batch(begins=[(1, 4)]), dtype)
    torch.manual_seed(3)
    seen = model.observe_all(batch, model.targets(batch)["noise"].to(dtype))
    state = {name: value[:, -1] for name, value in model.states(seen, {}).items()}
    actions = choices(3, 4, dtype=dtype)

    hidden, latent = rolled(model, state, actions)

    tokens = torch.cat([seen.before, latent[:, :-1]], 1)
    moves = torch.cat([seen.moves, actions], 1)
    begins = torch.cat([seen.begins, torch.zeros(3, 4, dtype=torch.bool)], 1)
    with torch.no_grad():
        whole, _ = model.dynamics.sequence(tokens, moves, model.dynamics.mask(begins))
    torch.testing.assert_close(hidden, whole[:, 8:], rtol=0.0, atol=tolerance)


def test_many_states_at_once_imagine_what_single_ones_do(name, make_agent, make_batch):
    model = make_agent(name).model.double()
    batch = batch_as(make_batch(begins=[(1, 4)]), torch.float64)
    state = state_as(batch_states(model, batch), torch.float64)
    actions = choices(len(state["latent"]), 4, dtype=torch.float64)

    together, _ = rolled(model, state, actions)

    for row in range(0, len(actions), 5):
        single = {key: value[row : row + 1] for key, value in state.items()}
        alone, _ = rolled(model, single, actions[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0.0, atol=1e-10)


def test_a_changed_image_changes_nothing_before_it(name, make_agent, make_batch):
    model, batch = make_agent(name).model.eval(), make_batch()
    changed = batch.obs["image"].clone()
    changed[:, 5] = 255 - changed[:, 5]

    before = batch_states(model, batch)["hidden"].unflatten(0, (3, -1))
    after = batch_states(model, replace(batch, obs={"image": changed}))["hidden"]
    after = after.unflatten(0, (3, -1))

    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])


def test_a_changed_action_changes_nothing_before_it(name, make_agent, make_batch):
    model, batch = make_agent(name).model.eval(), make_batch()
    changed = batch.action.clone()
    changed[:, 4] = changed[:, 4].roll(1, -1)

    before = batch_states(model, batch)["hidden"].unflatten(0, (3, -1))
    after = batch_states(model, replace(batch, action=changed))["hidden"].unflatten(0, (3, -1))

    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5], after[:, 5]).all(-1).any()


def test_nothing_crosses_an_episode_start(name, make_agent, make_batch):
    model, batch = make_agent(name).model.eval(), make_batch(begins=[(0, 4), (1, 4), (2, 4)])
    other = batch.obs["image"].clone()
    other[:, :4] = 255 - other[:, :4]
    moved = batch.action.clone()
    moved[:, :3] = moved[:, :3].roll(1, -1)
    torch.manual_seed(3)

    states = batch_states(model, batch)
    changed = batch_states(model, replace(batch, obs={"image": other}, action=moved))

    for key in ("latent", "hidden"):
        old, new = (s[key].unflatten(0, (3, -1)) for s in (states, changed))
        assert torch.equal(old[:, 4:], new[:, 4:])
    actions = choices(24, 4)
    old, new = (rolled(model, s, actions)[0].unflatten(0, (3, -1)) for s in (states, changed))
    assert torch.equal(old[:, 4:], new[:, 4:])
    assert not torch.equal(old[:, :4], new[:, :4])


def test_frames_taken_in_one_by_one_give_what_their_tokens_give_at_once(
    name, make_agent, make_batch
):
    """An episode of row 0 begins at step 2, so all tokens fit into either memory."""
    model, batch = make_agent(name).model.eval(), make_batch(num=2, length=4, begins=[(0, 2)])
    generator = torch.Generator().manual_seed(0)
    state, latent, hidden = model.initial_state(2), [], []
    begins = batch.is_first.clone()
    begins[:, 0] = True
    for t in range(4):
        action = torch.zeros(2, 3) if t == 0 else batch.action[:, t - 1]
        obs = {"image": batch.obs["image"][:, t]}
        state = model.observe(state, action, obs, begins[:, t], generator=generator)
        latent.append(state["latent"])
        hidden.append(state["hidden"])

    sequence = torch.stack(latent, 1)
    before, moves, starts = model.dynamics.previous(sequence, batch.action[:, :3], begins[:, :4])
    if name == "twister":
        with torch.no_grad():
            whole, _ = model.dynamics.sequence(before, moves, model.dynamics.mask(starts))
        torch.testing.assert_close(torch.stack(hidden, 1), whole, rtol=0.0, atol=1e-5)
    else:
        # Learned positions: the window is right-aligned, so its last slot is the newest token.
        with torch.no_grad():
            mask = model.dynamics.mask(starts)
            whole, _ = model.dynamics.sequence(before, moves, mask)
        torch.testing.assert_close(hidden[-1], whole[:, -1], rtol=0.0, atol=1e-5)


def test_a_new_episode_forgets_the_old_one(name, make_agent, make_batch):
    model, batch = make_agent(name).model.eval(), make_batch(num=2)
    obs = [{"image": batch.obs["image"][:, t]} for t in range(3)]
    zero, first = torch.zeros(2, 3), torch.tensor([True, True])

    def seeded():
        return torch.Generator().manual_seed(5)

    used = model.observe(model.initial_state(2), zero, obs[0], first, generator=seeded())
    used = model.observe(used, batch.action[:, 0], obs[1], ~first, generator=seeded())

    again = model.observe(
        used, batch.action[:, 1], obs[2], torch.tensor([True, False]), generator=seeded()
    )

    fresh = model.observe(model.initial_state(2), zero, obs[2], first, generator=seeded())
    torch.testing.assert_close(again["hidden"][0], fresh["hidden"][0], rtol=0.0, atol=1e-6)
    assert not torch.isclose(again["hidden"][1], fresh["hidden"][1]).all()


def test_a_packed_state_imagines_what_the_state_does(name, make_agent, make_batch):
    model = make_agent(name).model
    state = batch_states(model, make_batch())

    packed = model.pack(state)
    again = model.unpack(packed)

    assert all(torch.equal(again[key], state[key]) for key in state)
    action = choices(len(packed))
    direct = model.imagine(state, action, most_likely=True)
    assert torch.equal(
        model.features(model.imagine(again, action, most_likely=True)), model.features(direct)
    )
    assert model.pack(direct).shape == packed.shape


def test_imagination_writes_into_a_cache_made_once(name, make_agent, make_batch):
    model = make_agent(name).model
    state = model.begin_rollout(batch_states(model, make_batch()), 3)
    first = KVCache.from_state(state)

    for step in range(3):
        state = model.imagine(state, choices(24, 3)[:, step])

    last = KVCache.from_state(state)
    assert [k.data_ptr() for k in last.keys] == [k.data_ptr() for k in first.keys]
    assert last.filled == first.filled + 3 == last.keys[0].shape[2]


def test_twister_takes_an_action_outside_the_box_for_its_edge(make_agent, make_batch, spec):
    agent = make_agent("twister", task=replace(spec, action=Continuous(dim=3)))
    batch = make_batch()
    edge = replace(batch, action=2.0 * batch.action - 1.0)
    beyond = replace(edge, action=3.0 * edge.action)
    states, others = batch_states(agent.model, edge), batch_states(agent.model, beyond)
    actions = 2.0 * choices(len(states["latent"]), 4) - 1.0

    torch.testing.assert_close(others, states, rtol=0, atol=0)
    inside, outside = (rolled(agent.model, states, scale * actions) for scale in (1.0, 3.0))
    torch.testing.assert_close(outside, inside, rtol=0, atol=0)
    less, _ = rolled(agent.model, states, 0.5 * actions)
    assert not torch.allclose(less, inside[0])


def test_a_rollout_has_the_shapes_that_behaviour_learning_takes(name, make_agent, make_batch):
    agent = make_agent(name)
    states = batch_states(agent.model, make_batch())

    rollout = imagine(agent.model, agent.actor_critic, states, 4)

    assert rollout.features.shape == (24, 5, agent.model.feature_size)
    assert (rollout.reward.shape, rollout.cont.shape) == ((24, 4), (24, 5))
    assert rollout.action.sum(-1).unique().tolist() == [1.0]
    assert set(rollout.cont.unique().tolist()) <= {0.0, 1.0}


def test_images_are_decoded_into_the_unit_range(name, make_agent, make_batch):
    agent = make_agent(name)
    latent = agent.posterior(make_batch())

    shown = agent.decode(latent)["image"]

    assert shown.shape == (3, 8, 3, 16, 16)
    assert 0.0 <= float(shown.min()) <= float(shown.max()) <= 1.0
