"""What an environment wants recorded differently from what happens in it."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from mbrl_flat.agents.random_agent import RandomAgent
from mbrl_flat.envs import make_vector, spec_of
from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.evaluation.episodes import evaluate


class Lives(gym.Env):
    """Counts; every third step costs a life, the ninth ends the game."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Dict({"state": gym.spaces.Box(-1, 99, (1,), np.float32)})

    def __init__(self, split):
        self.split, self.time = split, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return {"state": np.zeros(1, np.float32)}, {}

    def step(self, action):
        self.time += 1
        lost, over = self.time % 3 == 0, self.time == 9
        info = {"life_lost": lost, "new_episode": lost and self.split}
        return {"state": np.full(1, self.time, np.float32)}, 1.0, over, False, info


def make(split, *, seed, render=False):
    env = Lives(split)
    env.np_random = np.random.default_rng(seed)
    return Resumable(env, episode_length=9, action_repeat=1)


@pytest.mark.parametrize("split", [False, True])
def test_a_lost_life_is_recorded_and_the_return_is_that_of_the_whole_game(split, collector_of):
    collector = collector_of(partial(make, split), num_envs=2)
    replay = collector.replay
    collector.start()
    for _ in range(9):
        collector.step(random=True)

    rows = replay.arrays["terminated"][0], replay.arrays["is_first"][0]
    time = replay.arrays["obs/state"][0, :, 0]
    if split:
        # Each life ends with its own last observation, with which the next begins.
        assert time[:12].tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9]
        assert np.flatnonzero(rows[0]).tolist() == [2, 6, 10]
        assert np.flatnonzero(rows[1]).tolist() == [0, 4, 8, 12]
    else:
        assert time[:10].tolist() == list(range(10))
        assert np.flatnonzero(rows[0]).tolist() == [2, 5, 8]
        assert np.flatnonzero(rows[1]).tolist() == [0, 10]
    assert collector.meter.pop()["episode/return"] == 9.0


def test_collecting_goes_on_on_a_cpu_from_a_state_that_a_gpu_left(collector_of):
    """Exploration noise of a CUDA generator has a state of 16 bytes."""
    collector = collector_of(partial(make, False), num_envs=2)
    collector.start()
    collector.step(random=True)
    state = collector.state_dict()
    state |= {"noise": torch.zeros(16, dtype=torch.uint8), "noise_device": "cuda"}
    draws = []

    for _ in range(2):
        collector.load_state_dict(state)
        draws.append(float(torch.rand((), generator=collector.noise)))

    assert draws[0] == draws[1]
    assert collector.running_length.tolist() == [1, 1]


@pytest.mark.parametrize("split", [False, True])
def test_an_evaluation_plays_whole_games_and_remembers_their_lives(split):
    envs = make_vector(partial(make, split), num_envs=2, seed=0)
    spec = spec_of(envs)

    (game,) = evaluate(RandomAgent(spec), envs, spec, episodes=1, seed=0)

    assert (game.undiscounted_return, game.terminated) == (9.0, True)
    assert game.life_lost.nonzero().flatten().tolist() == [2, 5, 8]
