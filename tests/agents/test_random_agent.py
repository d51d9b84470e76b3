"""The random agent fits wherever an agent fits, and draws from its generator alone."""

import pytest
import torch

from mbrl_flat.agents.random_agent import RandomAgent
from mbrl_flat.data.batch import Batch


@pytest.mark.parametrize("mode", ["explore", "eval", "policy"])
def test_actions_are_uniform_and_follow_from_the_generator(spec, mode):
    agent = RandomAgent(spec)
    obs = {"state": torch.zeros(2000, 3)}
    state, torch_state = agent.initial_state(2000), torch.get_rng_state()

    def act(seed):
        generator = torch.Generator().manual_seed(seed)
        return agent.act(obs, state, mode=mode, generator=generator)

    action, after = act(0)

    assert action.shape == (2000, 2)
    assert action.dtype == torch.float32
    assert action.abs().max() <= 1.0
    # Uniform on [-1, 1]: standard deviation 1 / sqrt(3), of the mean 0.009.
    assert action.mean().item() == pytest.approx(0.0, abs=0.05)
    assert action.std().item() == pytest.approx(3.0**-0.5, abs=0.03)
    assert torch.equal(action, act(0)[0])
    assert not torch.equal(action, act(1)[0])
    assert after["value"].shape == (2000,)
    assert torch.equal(torch_state, torch.get_rng_state())


def test_one_generator_gives_new_actions_at_every_step(spec):
    agent, generator = RandomAgent(spec), torch.Generator().manual_seed(0)
    obs, state = {"state": torch.zeros(3, 3)}, agent.initial_state(3)

    first, state = agent.act(obs, state, mode="eval", generator=generator)
    second, _ = agent.act(obs, state, mode="eval", generator=generator)

    assert not torch.equal(first, second)


def test_discrete_actions_are_one_hot(discrete_spec):
    agent = RandomAgent(discrete_spec)

    action, _ = agent.act(
        {"state": torch.zeros(50, 3)},
        agent.initial_state(50),
        mode="explore",
        generator=torch.Generator().manual_seed(0),
    )

    assert torch.equal(action.sort(-1).values, torch.eye(4)[3].expand(50, -1))
    assert len(action.unique(dim=0)) == 4


def test_it_learns_nothing_and_saves_nothing(spec):
    agent = RandomAgent(spec, config=None, optimizer=None)
    batch = Batch(
        obs={"state": torch.zeros(1, 2, 3)},
        action=torch.zeros(1, 1, 2),
        reward=torch.zeros(1, 1),
        terminated=torch.zeros(1, 1),
    )
    state = agent.initial_state(2)

    assert agent.update(batch) == {}
    assert agent.param_norm().item() == 0.0
    assert agent.state_dict() == {}
    agent.load_state_dict({})
    assert agent.reset_state(state, torch.tensor([True, False])) == state
    assert (agent.sequence_length, agent.batch_size) == (1, 1)
