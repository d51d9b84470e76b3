"""What every test shares: one thread, and two tiny environments' shapes."""

import pytest
import torch

from mbrl_flat.envs.dmc import set_renderer
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

# Simulators read the choice when the first test module imports one.
set_renderer()
torch.set_num_threads(1)


@pytest.fixture
def spec():
    return EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)


@pytest.fixture
def discrete_spec():
    return EnvSpec(obs={"state": (3,)}, action=Discrete(num=4), episode_length=50)
