"""Replay by energy: what is kept, how much of a batch it is, and that the rest stays as it was."""

import numpy as np
import pytest
import torch

from mbrl_flat.data.hopfield_energy import smoothed_energy
from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Prediction, ProbeLoss
from mbrl_flat.runtime.seeding import rng_state
from mbrl_flat.specs import Continuous, EnvSpec
from mbrl_flat.training.energy_sampler import EnergySampler, SelectionConfig, energies
from mbrl_flat.training.samplers import UniformSampler

SPEC = EnvSpec(obs={"state": (2,)}, action=Continuous(dim=1), episode_length=10)


class Sees:
    """An agent whose latents are the observations."""

    batch_size, sequence_length, across_episodes, discount = 8, 2, False, 0.9

    def posterior(self, batch):
        return batch.obs["state"]

    def probe_loss(self, batch):
        return ProbeLoss(lambda: torch.zeros(()), {})

    def predict(self, latent, action):
        return Prediction(latent, latent[:, 0], latent[:, 0])

    def value(self, latent):
        return latent[:, 0]


class Blind:
    batch_size, sequence_length, across_episodes = 8, 2, False


def filled(capacity=1000, episodes=20, rare=(7,)):
    """Episodes near the origin but for the rare ones, each far from everything."""
    replay = Replay(SPEC, capacity)
    for number in range(episodes):
        play(replay, number, far=number in rare)
    return replay


def play(replay, number, *, far=False):
    rng = np.random.default_rng(number)
    scale, centre = (30.0, 100.0) if far else (1.0, 0.0)
    obs = [centre + scale * rng.normal(size=2) for _ in range(11)]
    replay.begin(0, {"state": obs[0]})
    for t in range(10):
        done = t == 9
        replay.add(
            0, np.zeros(1), float(number), {"state": obs[t + 1]}, terminated=False, done=done
        )


def sampler(replay, **settings):
    return EnergySampler(
        replay,
        Sees(),
        SelectionConfig(**{"policy": "top_energy", "keep": 0.04, **settings}),
        seed=0,
    )


def episodes_of(batch):
    return batch.reward[:, 0].long().tolist()


def test_uniform_batches_are_those_of_the_replay():
    replay = filled()

    ours = UniformSampler(replay, Sees())(np.random.default_rng(3))
    theirs = replay.sample(8, 2, rng=np.random.default_rng(3))

    assert torch.equal(ours.obs["state"], theirs.obs["state"])
    assert torch.equal(ours.reward, theirs.reward)


def test_what_is_rare_is_kept_by_the_top_and_left_by_the_bottom():
    replay = filled()

    top, bottom = sampler(replay).choose(), sampler(replay, policy="bottom_energy").choose()

    assert set(episodes_of(replay.gather(top, 2))) == {7}
    assert 7 not in episodes_of(replay.gather(bottom, 2))


def test_a_share_of_the_batch_is_replayed_and_the_rest_is_drawn_as_ever():
    replay = filled()
    draw = sampler(replay, share=0.5)

    batch = draw(np.random.default_rng(3))
    uniform = replay.sample(4, 2, rng=np.random.default_rng(3))

    assert batch.reward.shape == (8, 2)
    assert torch.equal(batch.obs["state"][:4], uniform.obs["state"])
    assert set(episodes_of(batch)[4:]) == {7}


def test_a_share_of_one_leaves_nothing_to_chance():
    batch = sampler(filled(), share=1.0)(np.random.default_rng(3))

    assert set(episodes_of(batch)) == {7}
    assert batch.reward.shape == (8, 2)


def test_slices_that_were_overwritten_are_not_replayed():
    replay = filled(capacity=100, episodes=8)
    draw = sampler(replay)
    assert 7 in episodes_of(draw(np.random.default_rng(0)))

    for number in range(20, 32):
        play(replay, number)
    batch = draw(np.random.default_rng(0))

    assert len(draw.chosen) == 0
    assert 7 not in episodes_of(batch)
    assert batch.reward.shape == (8, 2)


def test_choices_are_made_anew_and_follow_the_encoder():
    replay = filled()
    draw, calls = sampler(replay, every=3), []
    choose = draw.choose
    draw.choose = lambda: calls.append(draw.updates) or choose()

    for _ in range(7):
        draw(np.random.default_rng(0))

    assert calls == [0, 3, 6]


def test_a_sampler_goes_on_where_it_was_saved():
    replay = filled()
    first, second = sampler(replay, every=4), sampler(replay, every=4)
    rng = np.random.default_rng(1)
    for _ in range(6):
        first(rng)
    second.load_state_dict(first.state_dict())
    state = rng.bit_generator.state

    ours = [first(rng).obs["state"] for _ in range(6)]
    rng.bit_generator.state = state
    theirs = [second(rng).obs["state"] for _ in range(6)]

    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_no_global_stream_moves():
    draw = sampler(filled(), policy="class_balanced")
    before = rng_state()

    draw(np.random.default_rng(0))

    after = rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])


def test_energies_leave_each_memory_out_and_are_none_where_all_are_the_same():
    memory = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
    others = torch.cdist(memory, memory).sort(1).values[:, 5]

    found = energies(memory)
    by_hand = torch.stack(
        [
            smoothed_energy(
                memory[i : i + 1],
                torch.cat([memory[:i], memory[i + 1 :]]),
                scale=float(others.quantile(0.5, interpolation="lower")),
            )[0]
            for i in range(20)
        ]
    )

    torch.testing.assert_close(found, by_hand, rtol=1e-10, atol=1e-10)
    assert torch.equal(energies(torch.ones(4, 2)), torch.zeros(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "top_enrgy"}, "did you mean 'top_energy'"),
        ({"policy": "none"}, "'none'"),
        ({"share": 0.0}, r"share must lie in \(0, 1\], got 0.0"),
        ({"keep": 1.5}, r"keep must lie in \(0, 1\], got 1.5"),
        ({"candidates": 1}, "candidates must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SelectionConfig(**settings)


def test_an_agent_without_latents_is_refused():
    with pytest.raises(UserError, match="looks at the latents of a world model"):
        EnergySampler(filled(), Blind(), SelectionConfig(policy="top_energy"), seed=0)
