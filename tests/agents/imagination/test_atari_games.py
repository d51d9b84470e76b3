"""Each game of Atari-100k is played for 200 steps by every agent that imagines."""

import numpy as np
import pytest
import torch

from mbrl_flat.cli.main import compose_run
from mbrl_flat.data.replay import Replay
from mbrl_flat.envs.atari import ATARI_100K
from mbrl_flat.runs.parts import build_agent
from mbrl_flat.training.collector import Collector, TrainEnvs
from mbrl_flat.training.meters import Stopwatch

STEPS = 200


@pytest.mark.sim
@pytest.mark.parametrize("game", ATARI_100K)
def test_the_agent_plays_and_learns_for_two_hundred_steps(name, game):
    config, parts = compose_run(
        f"agent={name}", "env=atari", f"env.task={game}", "preset=debug", "device=cpu"
    )
    vectors = parts.vectors
    envs = vectors.make_vector(parts.env, num_envs=1, seed=0)
    spec = vectors.spec_of(envs)
    agent = build_agent(config, parts, spec, torch.device("cpu"))
    replay = Replay(spec, 2 * STEPS, complete_only=False)
    unused = {"save": lambda: None, "restore": lambda state: {}}
    collector = Collector(
        agent,
        TrainEnvs(vector=envs, spec=spec, **unused),
        replay,
        Stopwatch(),
        seed=0,
        device=torch.device("cpu"),
    )

    collector.start()
    for _ in range(STEPS):
        collector.step(random=False)
    batch = replay.sample(
        agent.batch_size,
        agent.sequence_length,
        rng=np.random.default_rng(0),
        across_episodes=agent.across_episodes,
    )
    metrics = agent.update(batch)
    envs.close()

    assert len(replay) > STEPS
    assert all(torch.as_tensor(value).isfinite() for value in metrics.values())
