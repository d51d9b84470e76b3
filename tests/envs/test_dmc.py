"""The DeepMind Control suite behind Gymnasium's API."""

import csv
import ctypes
import sys
from importlib import resources
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from dm_control import suite
from gymnasium.utils.env_checker import check_env

from mbrl_flat.envs.dmc import find_task, make, task_names
from mbrl_flat.envs.dmc_custom import TASKS
from mbrl_flat.errors import MissingExtraError, UserError


@pytest.mark.filterwarnings("ignore:.*infinity.*")
def test_the_checker_of_gymnasium_is_content():
    check_env(make("cartpole-swingup", seed=0).unwrapped, skip_render_check=True)


def test_every_task_of_the_suite_has_a_name():
    assert set(task_names().values()) == set(suite.ALL_TASKS) | set(TASKS)
    assert not set(suite.ALL_TASKS) & set(TASKS)
    assert task_names()["ball_in_cup-catch"] == ("ball_in_cup", "catch")


def test_every_task_of_the_published_table_is_there_under_its_published_name():
    text = (resources.files("mbrl_flat.configs") / "reference" / "dmc.csv").read_text()
    published = {row["task"] for row in csv.DictReader(text.splitlines())}

    assert len(published) == 39
    assert {find_task(name) for name in published} >= set(TASKS)
    assert len({find_task(name) for name in published}) == 39


@pytest.mark.parametrize(
    "name", ["cup-catch", "ball-in-cup-catch", "ball_in_cup-catch", "ball_in_cup_catch"]
)
def test_a_task_is_found_in_every_spelling(name):
    assert find_task(name) == ("ball_in_cup", "catch")


def test_a_misspelt_task_names_the_nearest_one():
    with pytest.raises(UserError, match="'walker-wlak' for env=dmc; did you mean 'walker-walk'"):
        make("walker-wlak", seed=0)


def rollout(env: Any, actions: np.ndarray, seed: int | None = None) -> list[tuple[Any, ...]]:
    first = env.reset(seed=seed)[0]["state"]
    rows = [env.step(action) for action in actions]
    return [(first,), *[(obs["state"], reward, end, cut) for obs, reward, end, cut, _ in rows]]


def same(a: list[tuple[Any, ...]], b: list[tuple[Any, ...]]) -> bool:
    return all(
        np.array_equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def test_an_episode_is_a_function_of_the_seed():
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 1)).astype(np.float32)
    env, other = make("cartpole-swingup", seed=0), make("cartpole-swingup", seed=9)
    assert same(rollout(env, actions, seed=5), rollout(other, actions, seed=5))
    assert not same(rollout(env, actions, seed=5), rollout(env, actions, seed=6))
    first = rollout(make("cartpole-swingup", seed=3), actions)
    assert same(first, rollout(make("cartpole-swingup", seed=3), actions))


def test_a_step_sums_the_rewards_of_its_frames_and_ends_where_they_end():
    actions = np.zeros((40, 1), np.float32)
    single = rollout(make("cartpole-balance", seed=0, action_repeat=1), actions)
    double = rollout(make("cartpole-balance", seed=0, action_repeat=2), actions[:20])
    np.testing.assert_array_equal(double[-1][0], single[-1][0])
    pairs = [single[i][1] + single[i + 1][1] for i in range(1, 41, 2)]
    np.testing.assert_allclose([row[1] for row in double[1:]], pairs, rtol=1e-12)


def test_time_running_out_truncates_after_1000_frames():
    env = make("cartpole-balance", seed=0)
    env.reset()
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(500)]
    assert ends[-1] == (False, True)
    assert not any(any(end) for end in ends[:-1])
    assert env.get_wrapper_attr("episode_length") == 500


def test_actions_are_mapped_onto_the_bounds_of_the_task(monkeypatch):
    env = make("cartpole-swingup", seed=0).unwrapped
    env._low, env._high = np.array([-2.0]), np.array([6.0])
    env.reset()
    taken = []
    step = env._env.step
    monkeypatch.setattr(
        env._env, "step", lambda action: taken.append(float(action[0])) or step(action * 0)
    )
    for action in (-1.0, 0.0, 1.0):
        env.step(np.array([action], np.float32))
    assert taken[::2] == [-2.0, 2.0, 6.0]


def test_actions_without_bounds_are_taken_as_they_are():
    env = make("lqr-lqr_2_1", seed=0).unwrapped
    np.testing.assert_array_equal((env._low, env._high), ([-1.0], [1.0]))


def test_without_rendering_there_is_no_image():
    assert make("cartpole-swingup", seed=0).render() is None


def test_a_repeat_of_zero_is_refused():
    with pytest.raises(UserError, match="action_repeat must be at least 1, got 0"):
        make("cartpole-swingup", seed=0, action_repeat=0)


def test_a_renderer_that_cannot_be_loaded_is_told_from_a_missing_package(monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise ctypes.ArgumentError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setitem(sys.modules, "dm_control", Broken("dm_control"))
    with pytest.raises(
        UserError, match=r"renderer MUJOCO_GL=egl .*glGetError.*libopengl0"
    ) as error:
        make("cartpole-swingup", seed=0)
    assert not isinstance(error.value, MissingExtraError)

    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(MissingExtraError, match="needs dm-control"):
        make("cartpole-swingup", seed=0)


def test_rendering_that_is_switched_off_says_what_to_do(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(UserError, match="libegl1"):
        make("cartpole-swingup", seed=0, render=True)


@pytest.mark.sim
@pytest.mark.parametrize("task", sorted(task_names()))
def test_every_task_makes_100_steps_under_a_random_policy(task):
    env = make(task, seed=0)
    obs, _ = env.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(100):
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        assert env.observation_space.contains(obs)
        assert np.isfinite(obs["state"]).all()
        # The linear-quadratic tasks subtract a cost from one; all others lie in [0, 1] a frame.
        assert -1e-9 <= float(reward) + 100 * task.startswith("lqr") <= 102.0 + 1e-9
        assert float(reward) <= 2.0 + 1e-9
        if terminated or truncated:
            env.reset()
    env.close()


@pytest.mark.sim
def test_an_image_is_rendered_and_shows_something():
    env = make("cartpole-swingup", seed=0, render=True)
    env.reset()
    image = env.render()
    env.close()
    assert image.shape == (384, 384, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
