"""Action spaces: what is drawn, what is projected, and what the environment is given."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from mbrl_flat.specs import Continuous, Discrete


def test_continuous_actions_are_clamped_and_the_gradient_passes_inside_the_box():
    raw = torch.tensor([[-3.0, -0.5, 0.5, 3.0]], dtype=torch.float64, requires_grad=True)

    action = Continuous(dim=4).project(raw)
    action.sum().backward()

    assert action.tolist() == [[-1.0, -0.5, 0.5, 1.0]]
    assert raw.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


def test_random_continuous_actions_are_uniform():
    action = Continuous(dim=2).random(5000, np.random.default_rng(0))

    assert action.shape == (5000, 2)
    assert action.dtype == torch.float32
    assert kstest(action.flatten().numpy(), "uniform", (-1.0, 2.0)).pvalue > 1e-3


def test_random_discrete_actions_are_uniform_choices():
    action = Discrete(num=5).random(5000, np.random.default_rng(0))

    assert action.shape == (5000, 5)
    assert action.dtype == torch.float32
    assert torch.equal(action.sum(-1), torch.ones(5000))
    assert chisquare(action.sum(0).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("space", [Continuous(dim=3), Discrete(num=3)])
def test_random_actions_follow_from_their_generator(space):
    first = space.random(4, np.random.default_rng(1))

    assert torch.equal(first, space.random(4, np.random.default_rng(1)))
    assert first.shape == (4, space.size)


def test_a_discrete_choice_is_the_largest_entry_with_a_straight_through_gradient():
    raw = torch.tensor([[0.1, 0.9, 0.3]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    action = Discrete(num=3).project(raw)
    (action * weight).sum().backward()

    assert action.tolist() == [[0.0, 1.0, 0.0]]
    assert torch.equal(raw.grad[0], weight)


def test_projecting_twice_is_projecting_once():
    raw = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    for space in (Continuous(dim=3), Discrete(num=3)):
        once = space.project(raw)
        assert torch.equal(space.project(once), once)


def test_the_environment_is_given_floats_or_integers():
    continuous = Continuous(dim=2).to_env(torch.tensor([[0.5, -0.5]]))
    discrete = Discrete(num=3).to_env(torch.eye(3)[[2, 0]])

    assert continuous.dtype == np.float32
    assert continuous.tolist() == [[0.5, -0.5]]
    assert discrete.dtype.kind == "i"
    assert discrete.tolist() == [2, 0]
