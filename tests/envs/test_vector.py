"""Environments side by side, and their state."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch

from mbrl_flat.envs import dmc, dummy, gym, make_vector, restore_vector, spec_of, vector_state
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

FACTORIES = {
    "dummy": partial(dummy.make, "point"),
    "discrete": partial(dummy.make, "point-discrete"),
    "gym": partial(gym.make, "Pendulum-v1"),
    "dmc": partial(dmc.make, "cartpole-swingup"),
}


def equal(a, b) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_the_spec_says_shapes_and_units():
    assert spec_of(make_vector(FACTORIES["dmc"], num_envs=1, seed=0)) == EnvSpec(
        obs={"state": (5,)}, action=Continuous(dim=1), episode_length=500, action_repeat=2
    )
    assert spec_of(make_vector(FACTORIES["discrete"], num_envs=2, seed=0)) == EnvSpec(
        obs={"state": (3,)}, action=Discrete(num=5), episode_length=50, action_repeat=1
    )


@pytest.mark.parametrize("kind", FACTORIES)
def test_restored_environments_go_on_bit_for_bit_beyond_the_next_reset(kind, tmp_path):
    envs = make_vector(FACTORIES[kind], num_envs=2, seed=3)
    envs.reset()
    envs.action_space.seed(0)
    for _ in range(7):
        current = envs.step(envs.action_space.sample())[0]
    torch.save(vector_state(envs), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    twins = make_vector(FACTORIES[kind], num_envs=2, seed=3)
    assert equal(restore_vector(twins, state), current)
    for _ in range(3):
        for _ in range(5):
            action = envs.action_space.sample()
            ours, theirs = envs.step(action), twins.step(action)
            assert equal(ours[0], theirs[0])
            assert np.array_equal(ours[1], theirs[1])
        mask = np.array([True, False])
        ours = envs.reset(options={"reset_mask": mask})[0]
        assert equal(ours, twins.reset(options={"reset_mask": mask})[0])


def test_a_partial_reset_keeps_the_others_and_does_not_repeat_an_episode():
    envs = make_vector(FACTORIES["dummy"], num_envs=2, seed=0)
    first = envs.reset()[0]["state"]
    moved = envs.step(envs.action_space.sample())[0]["state"]
    fresh = envs.reset(options={"reset_mask": np.array([True, False])})[0]["state"]
    assert np.array_equal(fresh[1], moved[1])
    assert not np.array_equal(fresh[0], first[0])


def test_the_seed_of_an_environment_does_not_depend_on_how_many_there_are():
    few = make_vector(FACTORIES["dummy"], num_envs=2, seed=5).reset()[0]["state"]
    many = make_vector(FACTORIES["dummy"], num_envs=4, seed=5).reset()[0]["state"]
    assert np.array_equal(few, many[:2])
    assert len(np.unique(many[:, 0])) == 4


def test_processes_give_what_one_process_gives():
    plain = make_vector(FACTORIES["dummy"], num_envs=2, seed=1)
    parallel = make_vector(FACTORIES["dummy"], num_envs=2, seed=1, parallel=True)
    try:
        assert equal(plain.reset()[0], parallel.reset()[0])
        plain.action_space.seed(0)
        for _ in range(3):
            action = plain.action_space.sample()
            assert equal(plain.step(action)[0], parallel.step(action)[0])
        state = vector_state(parallel)
        restored = restore_vector(plain, state)
        assert equal(restored, restore_vector(parallel, state))
    finally:
        parallel.close()


def test_no_environment_at_all_is_refused():
    with pytest.raises(UserError, match="num_envs must be at least 1, got 0"):
        make_vector(FACTORIES["dummy"], num_envs=0, seed=0)


def test_an_environment_that_cannot_be_resumed_is_refused():
    def bare(*, seed, render):
        return gymnasium.make("CartPole-v1")

    with pytest.raises(UserError, match=r"must be wrapped in mbrl_flat.envs.wrappers.Resumable"):
        make_vector(bare, num_envs=1, seed=0)
