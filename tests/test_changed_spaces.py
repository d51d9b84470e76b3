"""An environment whose spaces have changed under a run is refused, also where sizes are equal."""

import re
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary

from mbrl_flat.cli import main as cli
from mbrl_flat.envs.gym import adapt
from mbrl_flat.envs.vector import make_vector, spec_of
from mbrl_flat.errors import UserError
from mbrl_flat.runs.loading import check_shapes, shapes_of_spec

TASK = "test-changed-spaces-v0"
OBS, ACTION = Box(-1, 1, (4,), np.float32), Box(-1, 1, (2,), np.float32)
IMAGE = Box(0, 255, (64, 64, 3), np.uint8)


class Spaces(gym.Env):
    """Has the spaces that it is told to have."""

    def __init__(self, observation=OBS, action=ACTION):
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def spec(observation=OBS, action=ACTION):
    def make(*, seed, render=False):
        return adapt(Spaces(observation, action), name="'it'", seed=seed)

    envs = make_vector(make, num_envs=1, seed=0)
    found = spec_of(envs)
    envs.close()
    return found


def saved(spec):
    return {"shapes": shapes_of_spec(spec), "spaces": dict(spec.native)}


BOTH = np.float32([-1, -3]), np.float32([1, 3])
FIVE = np.float32([-1, -1, -1, 0, 0]), np.ones(5, np.float32)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ({}, {"action": Box(-3, 3, (2,))}, "it had actions in [-1, 1]^2, now [-3, 3]^2"),
        ({}, {"action": Box(0, 1, (2,))}, "it had actions in [-1, 1]^2, now [0, 1]^2"),
        (
            {"action": Box(-1, 1, (5,))},
            {"action": Box(*FIVE, dtype=np.float32)},
            "it had actions in [-1, 1]^5, now [-1, 1]^3 x [0, 1]^2",
        ),
        ({}, {"action": Box(*BOTH, dtype=np.float32)}, "now [-1, 1] x [-3, 3]"),
        (
            {},
            {"action": Box(-1, 1, (2,), np.int64)},
            "it had actions of Box (2,) float32, now Box (2,) int64",
        ),
        (
            {"action": Discrete(3)},
            {"action": Discrete(3, start=1)},
            "it had actions of Discrete(3), now Discrete(3, start=1)",
        ),
        (
            {},
            {"observation": Box(-1, 1, (2, 2), np.float32)},
            "it had observations of Box (4,) float32, now Box (2, 2) float32",
        ),
        (
            {},
            {"observation": Box(-1, 1, (4,), np.float64)},
            "it had observations of Box (4,) float32, now Box (4,) float64",
        ),
        ({}, {"observation": Discrete(4)}, "of Box (4,) float32, now Discrete(4)"),
        ({}, {"observation": MultiBinary(4)}, "of Box (4,) float32, now MultiBinary(4)"),
        (
            {},
            {"observation": Dict(a=Box(-1, 1, (1,)), b=Box(-1, 1, (3,)))},
            "it had observations of Box (4,) float32, now none; "
            "it had the observation 'a' of none, now Box (1,) float32",
        ),
        (
            {"observation": Dict(a=Box(-1, 1, (1,)), b=Box(-1, 1, (3,)))},
            {"observation": Dict(a=Box(-1, 1, (3,)), b=Box(-1, 1, (1,)))},
            "it had the observation 'a' of Box (1,) float32, now Box (3,) float32",
        ),
        (
            {"observation": IMAGE},
            {"observation": Box(0, 255, (96, 96, 3), np.uint8)},
            "it had observations of Box (64, 64, 3) uint8, now Box (96, 96, 3) uint8",
        ),
        (
            {"observation": IMAGE},
            {"observation": Box(0, 255, (64, 64, 1), np.uint8)},
            "it had 3x64x64 entries of 'rgb', now has 1x64x64",
        ),
    ],
)
def test_spaces_of_equal_size_that_differ_are_named(tmp_path, was, now, said):
    check_shapes(saved(spec(**was)), spec(**was), tmp_path)

    with pytest.raises(UserError, match=re.escape(said)):
        check_shapes(saved(spec(**was)), spec(**now), tmp_path)


def test_an_older_checkpoint_without_native_spaces_is_taken(tmp_path):
    old = {"shapes": shapes_of_spec(spec())}

    check_shapes(old, spec(action=Box(-3, 3, (2,))), tmp_path)


def test_every_command_refuses_changed_bounds(command, fails, tmp_path):
    register = partial(gym.register, TASK, max_episode_steps=20)
    short = ["threads=1", "progress=false", "steps=120", "seed_steps=60"]
    never = ["eval_every=0", "probe_every=0"]
    register(Spaces)
    try:
        words = ["preset=debug", "env=gym", f"env.task={TASK}", "run_dir=run"]
        command(cli.train, *words, *short, *never)
        del gym.registry[TASK]
        register(partial(Spaces, action=Box(-3, 3, (2,), np.float32)))
        refusals = [
            fails("resume=run", "steps=150"),
            fails("run=run", entry=cli.evaluate),
            fails("run=run", "probe=sharpness", entry=cli.probe),
            fails("run=run", entry=cli.export),
        ]
    finally:
        del gym.registry[TASK]

    assert all("it had actions in [-1, 1]^2, now [-3, 3]^2" in text for text in refusals), refusals
