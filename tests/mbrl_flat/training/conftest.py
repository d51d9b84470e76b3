"""A collector that plays a test's own environment at random."""

from functools import partial

import pytest
import torch

from mbrl_flat.agents.random_agent import RandomAgent
from mbrl_flat.data.replay import Replay
from mbrl_flat.envs import make_vector, restore_vector, spec_of, vector_state
from mbrl_flat.training.collector import Collector, TrainEnvs
from mbrl_flat.training.meters import Stopwatch


@pytest.fixture
def collector_of():
    def build(factory, *, num_envs=1):
        envs = make_vector(factory, num_envs=num_envs, seed=0)
        spec = spec_of(envs)
        return Collector(
            RandomAgent(spec),
            TrainEnvs(
                vector=envs,
                spec=spec,
                save=partial(vector_state, envs),
                restore=partial(restore_vector, envs),
            ),
            Replay(spec, 100, num_envs=num_envs, complete_only=False),
            Stopwatch(),
            seed=0,
            device=torch.device("cpu"),
        )

    return build
