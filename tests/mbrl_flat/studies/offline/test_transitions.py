"""Subsequences and returns of recorded episodes."""

import numpy as np
import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.studies.offline.transitions import Transitions, discounted_sums


@pytest.fixture
def episodes():
    """Two episodes of six steps; an observation says which and when."""
    time = np.arange(7, dtype=np.float32)
    obs = np.stack([np.stack([time, np.full(7, e, np.float32)], 1) for e in range(2)])
    action = obs[:, :-1, :1] / 10.0
    arrays = {"obs": obs, "action": action, "reward": np.ones((2, 6), np.float32)}
    return Transitions.of(arrays, length=4, discount=0.5)


def test_returns_are_discounted_sums():
    reward = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)

    torch.testing.assert_close(
        discounted_sums(reward, 0.5),
        torch.tensor([[1.5, 1.0, 2.0]], dtype=torch.float64),
        rtol=0.0,
        atol=1e-15,
    )


def test_returns_know_the_tail_that_models_never_see(episodes):
    assert episodes.obs.shape == (2, 5, 2)
    # 1 + 1/2 + 1/4 from the fourth of six steps on.
    assert float(episodes.returns[0, 3]) == 1.75


def test_slices_are_neighbouring_steps_of_one_episode(episodes):
    subsequences = episodes.subsequences(np.array([1, 0]), np.array([2, 0]), 2)

    np.testing.assert_array_equal(subsequences.obs[0], [[2, 1], [3, 1], [4, 1]])
    np.testing.assert_array_equal(subsequences.obs[1], [[0, 0], [1, 0], [2, 0]])
    torch.testing.assert_close(subsequences.batch.action[0, :, 0], torch.tensor([0.2, 0.3]))
    assert subsequences.returns.shape == subsequences.batch.reward.shape == (2, 2)


def test_every_slice_there_is_can_be_drawn_and_is_listed(episodes):
    drawn = episodes.draw(500, 3, rng=np.random.default_rng(0))
    listed = episodes.every(1, 3)

    starts = {tuple(first.tolist()) for first in drawn.obs[:, 0]}
    assert starts == {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert {tuple(first.tolist()) for first in listed.obs[:, 0]} == starts
    assert len(listed.obs) == 4


def test_observations_are_scaled_by_other_episodes_and_cut_off():
    generator = torch.Generator().manual_seed(0)
    obs = 3.0 + 2.0 * torch.randn(4, 101, 3, generator=generator)
    one = torch.zeros(4, 100)
    data = Transitions(obs=obs, action=one[..., None], reward=one, returns=one)

    scaled = data.take(np.array([2, 0])).standardised(data)
    own = data.standardised(data)

    flat = own.obs.flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(3), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(flat.std(0), torch.ones(3))
    torch.testing.assert_close(scaled.obs, own.obs[[2, 0]])
    far = Transitions(obs=obs * 1e4, action=one[..., None], reward=one, returns=one)
    assert far.standardised(data).obs.abs().max() == 10.0


def test_slices_that_do_not_fit_are_refused(episodes):
    with pytest.raises(
        UserError, match="Subsequences of 5 transitions do not fit into episodes of 4"
    ):
        episodes.draw(1, 5, rng=np.random.default_rng(0))
