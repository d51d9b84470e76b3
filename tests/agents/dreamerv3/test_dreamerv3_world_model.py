"""DreamerV3's recurrence and loss against plain formulas, in float64."""

import math

import pytest
import torch
from torch import nn

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.dreamerv3.config import SIZES, DreamerV3Config
from mbrl_flat.agents.dreamerv3.observations import Decoder, Encoder
from mbrl_flat.agents.dreamerv3.rssm import RSSM
from mbrl_flat.agents.dreamerv3.world_model import WorldModel
from mbrl_flat.data.batch import Batch
from mbrl_flat.errors import UserError
from mbrl_flat.models.block_gru import BlockGRU, BlockLinear
from mbrl_flat.models.conv import ConvDecoder, ConvEncoder, stages_for
from mbrl_flat.models.functional import symlog
from mbrl_flat.specs import Continuous, EnvSpec

EXACT = {"rtol": 1e-11, "atol": 1e-11}
SPEC = EnvSpec(
    obs={"state": (3,), "image": (2, 8, 8)},
    action=Continuous(dim=2),
    episode_length=20,
    images=frozenset({"image"}),
)
CONFIG = DreamerV3Config(size="debug", categoricals=3, num_bins=11, bin_limit=3.0)
GAMMA = 0.9


def make_model(seed=0):
    torch.manual_seed(seed)
    model = WorldModel(SPEC, CONFIG, discount=GAMMA).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def make_batch(size=2, length=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    is_first = torch.zeros(size, length + 1, dtype=torch.bool)
    is_first[1, 3] = True
    terminated = torch.zeros(size, length, dtype=torch.float64)
    terminated[1, 1] = 1.0
    return Batch(
        obs={
            "state": torch.randn(size, length + 1, 3, generator=g, dtype=torch.float64),
            "image": torch.rand(size, length + 1, 2, 8, 8, generator=g, dtype=torch.float64),
        },
        action=3.0 * torch.randn(size, length, 2, generator=g, dtype=torch.float64),
        reward=torch.randn(size, length, generator=g, dtype=torch.float64),
        terminated=terminated,
        is_first=is_first,
    )


def test_the_block_recurrence_is_that_of_the_equations():
    gru = BlockGRU(4, 6, 2).double()
    h, x = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        gru.norm.weight.add_(torch.rand(6, dtype=torch.float64))

    expected = torch.empty_like(h)
    full = gru.from_input(x) + gru.from_state.bias
    for block in range(2):
        part = slice(3 * block, 3 * block + 3)
        full[:, part] = full[:, part] + h[:, part] @ gru.from_state.weight[block].T
    full = full / (full.square().mean(-1, keepdim=True) + 1e-4).sqrt() * gru.norm.weight
    y = full / (1.0 + torch.exp(-full))
    for block in range(2):
        part = slice(3 * block, 3 * block + 3)
        gates = y[:, part] @ gru.gates.weight[block].T + gru.gates.bias[9 * block : 9 * block + 9]
        r, c, u = gates[:, :3], gates[:, 3:6], gates[:, 6:]
        c = torch.tanh(c / (1.0 + torch.exp(-r)))
        u = 1.0 / (1.0 + torch.exp(1.0 - u))
        expected[:, part] = u * c + (1.0 - u) * h[:, part]

    torch.testing.assert_close(gru(h, x), expected, **EXACT)


def test_sizes_that_blocks_do_not_divide_are_refused():
    with pytest.raises(UserError, match="divisible by blocks=4"):
        BlockLinear(6, 8, 4)


@torch.no_grad()
def test_blocks_start_as_narrow_as_one_full_matrix():
    """The official code counts the inputs of all blocks for the start of each one's weights.

    A sample of n numbers has the deviation of its distribution to a share of 1 / sqrt(2 n).
    """
    torch.manual_seed(0)
    alone, gru = BlockLinear(256, 512, 8), BlockGRU(96, 256, 8)

    for weight, fan_in in (
        (alone.weight, 256),
        (gru.gates.weight, 256),
        (gru.from_state.weight, 256 + 8 * 96),
        (gru.from_input.weight, 256 + 8 * 96),
    ):
        share = 5.0 / (2.0 * weight.numel()) ** 0.5
        assert float(weight.std()) == pytest.approx(fan_in**-0.5, rel=share)


@torch.no_grad()
def test_unrolling_at_once_is_stepping_through_the_sequence():
    """Actions and embeddings that were joined beforehand give what single steps give."""
    model, batch = make_model(), make_batch()
    rssm, targets = model.dynamics, model.targets(batch)
    states, posterior = model._unroll(batch, targets)
    embed = model.encoder(batch.obs)
    previous = model.initial_state(2)

    for t in range(6):
        keep = torch.ones(2, 1, dtype=torch.float64)
        keep[batch.is_first[:, t]] = 0.0
        action = batch.action[:, t - 1] if t else torch.zeros(2, 2, dtype=torch.float64)
        deter = rssm.advance({k: v * keep for k, v in previous.items()}, action * keep)
        log_probs = rssm.posterior_log_probs(deter, embed[:, t])
        torch.testing.assert_close(states["deter"][:, t], deter, **EXACT)
        torch.testing.assert_close(posterior[:, t], log_probs, **EXACT)
        previous = {"deter": deter, "stoch": states["stoch"][:, t]}


@torch.no_grad()
def test_observing_begins_anew_where_an_episode_does():
    model, batch = make_model(), make_batch()
    used = {k: torch.randn_like(v) for k, v in model.initial_state(2).items()}
    obs = {name: value[:, 0] for name, value in batch.obs.items()}
    action, first = batch.action[:, 0], torch.tensor([True, False])

    def observe(state):
        return model.observe(state, action, obs, first, generator=torch.Generator().manual_seed(0))

    fresh, kept = observe(model.initial_state(2)), observe(used)

    assert torch.equal(fresh["deter"][0], kept["deter"][0])
    assert not torch.equal(fresh["deter"][1], kept["deter"][1])


def test_actions_beyond_the_box_count_as_its_edge():
    rssm = RSSM(4, 2, CONFIG).double()
    state = rssm.initial_state(1)
    far, edge = torch.tensor([[7.0, -0.5]]).double(), torch.tensor([[1.0, -0.5]]).double()

    assert torch.equal(rssm.advance(state, far), rssm.advance(state, edge))


def test_the_loss_is_that_of_the_equations():
    model, batch = make_model(), make_batch()
    targets = model.targets(batch)
    states, posterior = model._unroll(batch, targets)
    features = model.features(states)
    prior = model.dynamics.prior_log_probs(states["deter"])
    sums = dict.fromkeys(("image", "state", "reward", "continue", "dynamics"), 0.0)
    bins = torch.linspace(-3.0, 3.0, 11, dtype=torch.float64)
    bins = torch.sign(bins) * torch.expm1(bins.abs())
    decoded = model.decoder._raw(features)
    for b in range(2):
        for t in range(5):
            after = t + 1
            image = decoded["image"][b, after] - batch.obs["image"][b, after]
            state = decoded["state"][b, after] - symlog(batch.obs["state"][b, after])
            sums["image"] += image.square().sum()
            sums["state"] += state.square().sum()
            reward = batch.reward[b, t]
            lower = int((bins <= reward).sum()) - 1
            share = (reward - bins[lower]) / (bins[lower + 1] - bins[lower])
            log_q = torch.log_softmax(model.reward(features[b, after]), -1)
            sums["reward"] -= (1.0 - share) * log_q[lower] + share * log_q[lower + 1]
            goal = GAMMA * (1.0 - batch.terminated[b, t])
            prob = torch.sigmoid(model.continuation(features[b, after])[0])
            sums["continue"] -= goal * prob.log() + (1.0 - goal) * (1.0 - prob).log()
            p, q = posterior[b, after], prior[b, after]
            kl = sum((p[s].exp() * (p[s] - q[s])).sum() for s in range(3))
            sums["dynamics"] += torch.clamp(kl, min=1.0)
    expected = sum(sums.values()) + 0.1 * sums["dynamics"]

    output = model.loss(batch, targets)

    torch.testing.assert_close(output.loss, expected / 10.0, **EXACT)


def test_terms_below_the_free_nats_have_no_gradient():
    model, batch = make_model(), make_batch()
    object.__setattr__(model.config, "free_nats", 1e9)
    try:
        model.loss(batch, model.targets(batch)).loss.backward()
    finally:
        object.__setattr__(model.config, "free_nats", 1.0)

    assert all(p.grad is None or not p.grad.any() for p in model.dynamics.prior.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.dynamics.core.parameters())


def test_the_reward_head_starts_at_exactly_zero():
    torch.manual_seed(0)
    model = WorldModel(SPEC, CONFIG, discount=GAMMA)

    assert model.predict_reward(torch.randn(4, model.feature_size)).tolist() == [0.0] * 4


def test_the_discount_is_folded_into_the_continuation_and_taken_out_again():
    model = make_model()
    features = torch.randn(4, model.feature_size, dtype=torch.float64)

    folded = torch.sigmoid(model.continuation(features))[..., 0]

    torch.testing.assert_close(GAMMA * model.predict_continue(features), folded, **EXACT)


def test_a_batch_without_marks_of_episodes_is_one_without_any_start():
    model, batch = make_model(), make_batch()
    assert batch.is_first is not None
    batch.is_first[:] = False
    targets = model.targets(batch)
    bare = Batch(
        obs=batch.obs, action=batch.action, reward=batch.reward, terminated=batch.terminated
    )

    assert torch.equal(model.loss(batch, targets).loss, model.loss(bare, targets).loss)


def test_uint8_images_are_those_in_the_unit_range():
    model = make_model().float()
    image = torch.randint(256, (2, 5, 2, 8, 8), dtype=torch.uint8)
    state = torch.randn(2, 5, 3)

    from_bytes = model.encoder({"state": state, "image": image})
    from_floats = model.encoder({"state": state, "image": image.float() / 255.0})

    assert torch.equal(from_bytes, from_floats)


def test_images_of_every_published_depth_come_back_in_their_shape():
    encoder, decoder = ConvEncoder(3, 64, [4, 6, 8, 8]), ConvDecoder([8, 8, 6, 4], 3)

    grid = encoder(torch.rand(2, 3, 64, 64)).view(2, 4, 4, 8).movedim(-1, 1)

    assert decoder(grid).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("side", [8, 10, 12, 14, 48, 80])
def test_small_images_and_those_of_odd_grids_are_decoded_at_their_own_size(side):
    spec = EnvSpec(
        obs={"image": (4, side, side)},
        action=Continuous(dim=1),
        episode_length=5,
        images=frozenset({"image"}),
    )
    image = torch.rand(2, 3, 4, side, side)
    encoder, decoder = Encoder(spec, CONFIG), Decoder(8, 4, spec, CONFIG)

    assert encoder({"image": image}).shape == (2, 3, encoder.out_features)
    assert decoder(torch.rand(2, 3, 12))["image"].shape == image.shape


@pytest.mark.parametrize("shape", [(3, 60, 60), (3, 9, 9), (3, 64, 32), (3, 128, 128), (64, 64)])
def test_images_that_cannot_be_halved_to_the_grid_are_refused(shape):
    with pytest.raises(UserError, match="64x64"):
        stages_for(shape, 4)


def test_an_entry_that_is_neither_vector_nor_image_is_refused():
    spec = EnvSpec(obs={"grid": (4, 4)}, action=Continuous(dim=1), episode_length=5)

    with pytest.raises(UserError, match="'grid'"):
        Decoder(8, 4, spec, CONFIG)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": "12m"}, "12M"),
        ({"size": "debug", "blocks": 3}, "divisible by"),
        ({"unimix": 1.0}, "unimix must lie in"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        DreamerV3Config(**settings)


@pytest.mark.parametrize(("size", "millions"), [("12M", 12.0), ("25M", 25.0), ("200M", 200.0)])
def test_the_sizes_have_the_parameters_in_their_names(size, millions):
    """Model, actor and critic on 64x64 RGB images, within a fifth of the label."""
    spec = EnvSpec(obs={"image": (3, 64, 64)}, action=Continuous(dim=6), episode_length=5)
    config = DreamerV3Config(size=size)
    with torch.device("meta"):
        model = WorldModel(spec, config, discount=ActorCriticConfig().discount)
        units = SIZES[size]["units"]
        heads = [nn.Linear(model.feature_size, units), nn.Linear(units, units)]
        heads += [nn.Linear(units, units), nn.Linear(units, 255)]
    count = sum(p.numel() for p in model.parameters())
    count += 2 * sum(p.numel() for head in heads for p in head.parameters())

    assert math.isclose(count / 1e6, millions, rel_tol=0.2)
