"""Perturbed environments: what each wrapper changes, and by how much."""

import gymnasium as gym
import numpy as np
import pytest

from mbrl_flat.envs import dmc, dummy
from mbrl_flat.envs import gym as registered
from mbrl_flat.envs.perturbations import (
    ActionDelay,
    ActionNoise,
    ChangedDynamics,
    ObservationNoise,
    mujoco_model,
)
from mbrl_flat.errors import UserError


class Recording(gym.Env):
    observation_space = gym.spaces.Dict({"state": gym.spaces.Box(-9.0, 9.0, (2,), np.float32)})
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.given = []

    def reset(self, *, seed=None, options=None):
        return {"state": np.ones(2, np.float32)}, {}

    def step(self, action):
        self.given.append(np.array(action))
        return {"state": np.ones(2, np.float32)}, 0.0, False, False, {}


def played(wrapped, num, action=0.2):
    wrapped.reset()
    obs = [wrapped.step(np.array([action], np.float32))[0]["state"] for _ in range(num)]
    return np.array(wrapped.unwrapped.given), np.array(obs)


def test_action_noise_has_its_standard_deviation_and_stays_in_the_box():
    given, _ = played(ActionNoise(Recording(), 0.1), 4000)

    assert given.std() == pytest.approx(0.1, rel=0.05)
    assert given.mean() == pytest.approx(0.2, abs=0.01)
    assert np.abs(played(ActionNoise(Recording(), 3.0), 50)[0]).max() == 1.0
    assert (played(ActionNoise(Recording(), 0.0), 5)[0] == np.float32(0.2)).all()


def test_observation_noise_follows_the_scale_of_each_entry():
    scale = {"state": np.array([2.0, 0.0])}

    _, obs = played(ObservationNoise(Recording(), 0.5, scale=scale), 4000)

    assert obs[:, 0].std() == pytest.approx(1.0, rel=0.05)
    assert (obs[:, 1] == 1.0).all()


def test_a_delay_shifts_actions_and_starts_with_zeros():
    wrapped = ActionDelay(Recording(), 2)
    for _ in range(2):
        wrapped.unwrapped.given = []
        wrapped.reset()
        for step in range(4):
            wrapped.step(np.array([0.1 * (step + 1)], np.float32))
        assert np.allclose(np.ravel(wrapped.unwrapped.given), [0.0, 0.0, 0.1, 0.2])
    with pytest.raises(UserError, match=r"whole number of steps, got 0\.5"):
        ActionDelay(Recording(), 0.5)


def test_masses_gravity_friction_and_actuators_of_a_model_are_scaled():
    fields = {
        "mass": ("body_mass", 1.5),
        "gravity": ("opt.gravity", 1.5),
        "friction": ("geom_friction", 1 / 1.5),
        "actuator": ("actuator_gainprm", 1 / 1.5),
    }

    def value(env, path):
        found = mujoco_model(env.unwrapped)
        for name in path.split("."):
            found = getattr(found, name)
        return np.array(found)

    for quantity, (path, factor) in fields.items():
        env = dmc.make("walker-walk", seed=0)
        before = value(env, path)
        env.env = ChangedDynamics(env.env, 0.5, quantity=quantity)
        env.reset(seed=0)
        np.testing.assert_allclose(value(env, path), factor * before, rtol=1e-12)
        env.close()


def test_a_heavier_body_falls_as_fast_and_stronger_gravity_pulls_faster():
    def speed(quantity):
        env = dmc.make("walker-walk", seed=0)
        if quantity:
            env.env = ChangedDynamics(env.env, 1.0, quantity=quantity)
        env.reset(seed=3)
        env.unwrapped._env.physics.named.data.qpos["rootz"] = 5.0
        env.step(np.zeros(6, np.float32))
        return float(env.unwrapped._env.physics.named.data.qvel["rootz"][0])

    free = speed(None)
    assert speed("gravity") == pytest.approx(2.0 * free, rel=0.05)
    assert speed("mass") == pytest.approx(free, rel=0.05)


def test_classic_control_has_quantities_and_others_say_that_they_have_none():
    env = registered.make("CartPole-v1", seed=0)
    env.env = ChangedDynamics(env.env, 1.0, quantity="mass")

    assert env.unwrapped.total_mass == pytest.approx(2.2)
    with pytest.raises(UserError, match="Point has no gravity that could be changed"):
        ChangedDynamics(dummy.make("point", seed=0), 1.0, quantity="gravity")
