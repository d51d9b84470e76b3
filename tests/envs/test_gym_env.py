"""Registered Gymnasium environments."""

from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.utils.env_checker import check_env

from mbrl_flat.envs import dummy
from mbrl_flat.envs.gym import adapt, make
from mbrl_flat.errors import UserError


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version.*")
@pytest.mark.filterwarnings("ignore:.*infinity.*")
@pytest.mark.parametrize("task", ["Pendulum-v1", "CartPole-v1"])
def test_the_checker_of_gymnasium_is_content(task):
    check_env(make(task, seed=0), skip_render_check=True)


@pytest.mark.filterwarnings("ignore:.*infinity.*")
@pytest.mark.parametrize("task", dummy.TASKS)
def test_the_checker_is_content_with_the_dummy(task):
    check_env(dummy.make(task, seed=0).unwrapped, skip_render_check=True)


def test_an_id_that_is_not_registered_names_the_nearest_one():
    with pytest.raises(UserError, match="'Pendulm-v1' for env=gym; did you mean 'Pendulum-v1'"):
        make("Pendulm-v1", seed=0)


def test_actions_are_rescaled_to_the_unit_box():
    env = make("Pendulum-v1", seed=0)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    env.reset(seed=0)
    env.step(np.array([0.5], np.float32))
    assert env.unwrapped.last_u == pytest.approx(1.0)


def test_termination_is_told_from_truncation():
    env = make("CartPole-v1", seed=0)
    env.reset(seed=0)
    while True:
        _, _, terminated, truncated, _ = env.step(0)
        if terminated or truncated:
            break
    assert (terminated, truncated) == (True, False)


def test_repeated_actions_sum_their_rewards():
    env = make("CartPole-v1", seed=0, action_repeat=3)
    env.reset(seed=0)
    assert env.step(1)[1] == 3.0
    assert env.get_wrapper_attr("episode_length") == 167


class Odd(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as in Gymnasium

    def __init__(self, render_mode=None):
        self.render_mode = render_mode


class Unbounded(Odd):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Text(Odd):
    observation_space = gym.spaces.Dict({"words": gym.spaces.Text(5)})
    action_space = gym.spaces.Discrete(2)


class Long(Odd):
    observation_space = gym.spaces.Box(-1, 1, (300, 300), np.float32)
    action_space = gym.spaces.Discrete(2)


class Several(Odd):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.MultiBinary(3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unbounded, "'Odd-v0' have no bounds"),
        (Text, "'Odd-v0' has the observation words: Text"),
        (Long, "have 90000 entries as a vector; env=gym takes 1 to 10000"),
        (Several, r"takes Box or Discrete actions; 'Odd-v0' has MultiBinary\(3\)"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(kind, message):
    gym.register("Odd-v0", entry_point=kind, disable_env_checker=True)
    try:
        with pytest.raises(UserError, match=message):
            make("Odd-v0", seed=0)
    finally:
        gym.registry.pop("Odd-v0")


def test_an_environment_without_a_limit_is_cut_off():
    env = make("CliffWalking-v1", seed=0, action_repeat=3)
    env.reset(seed=0)
    steps, truncated = 0, False
    while not truncated:
        # Up, against the wall: nothing ends this by itself.
        _, _, terminated, truncated, _ = env.step(0)
        assert not terminated
        steps += 1

    assert steps == env.episode_length == 334


@pytest.mark.parametrize("limits", [(50,), (50, 80), (80, 50)])
def test_the_shortest_time_limit_around_an_environment_is_its_length(limits):
    inner = PendulumEnv()
    for limit in limits:
        inner = gym.wrappers.TimeLimit(inner, limit)

    env = adapt(gym.wrappers.RecordEpisodeStatistics(inner), name="'it'", seed=0, action_repeat=4)

    assert env.episode_length == 13


def test_a_time_limit_around_a_registered_environment_does_not_lengthen_it():
    env = gym.wrappers.TimeLimit(gym.make("Pendulum-v1"), 500)

    assert adapt(env, name="'it'", seed=0).episode_length == 200


def test_a_module_before_the_id_is_imported_first(tmp_path, monkeypatch):
    (tmp_path / "own_games.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('Own-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=7)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(gym.registry, "Own-v0", None)
    gym.registry.pop("Own-v0")

    assert make("own_games:Own-v0", seed=0).episode_length == 7
    with pytest.raises(UserError, match="'Owm-v0' for env=gym; did you mean 'Own-v0'"):
        make("own_games:Owm-v0", seed=0)
    with pytest.raises(UserError, match="no_such_module"):
        make("no_such_module:Own-v0", seed=0)


def test_what_draws_is_looked_for_before_an_episode(monkeypatch):
    class Undrawn(gym.Env):
        observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
        action_space = gym.spaces.Discrete(2)
        metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 30}

        def __init__(self, render_mode=None):
            self.render_mode = render_mode

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 0.0, False, False, {}

        def render(self):
            raise gym.error.DependencyNotInstalled("pygame is not installed")

    spec = gym.envs.registration.EnvSpec("Undrawn-v0", Undrawn, disable_env_checker=True)
    monkeypatch.setitem(gym.registry, "Undrawn-v0", spec)

    make("Undrawn-v0", seed=0)
    with pytest.raises(UserError, match=r"'Undrawn-v0' failed in render.*pygame is not installed"):
        make("Undrawn-v0", seed=0, render=True)


class Plain(gym.Env):
    """As many write them: without a render_mode."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Broken(Plain):
    def __init__(self):
        raise RuntimeError("no licence here")


@pytest.fixture
def registered():
    names = {"Plain-v0": Plain, "Broken-v0": Broken}
    for name, kind in names.items():
        gym.register(name, entry_point=kind, max_episode_steps=5)
    yield
    for name in names:
        gym.registry.pop(name)


def test_an_environment_that_cannot_draw_is_made_where_nothing_is_drawn(registered):
    env = make("Plain-v0", seed=0)
    assert env.reset(seed=0)[0]["state"].tolist() == [0.0, 0.0]
    with pytest.raises(UserError, match="'Plain-v0' cannot be made"):
        make("Plain-v0", seed=0, render=True)


def test_what_the_code_of_an_environment_raises_names_it(registered):
    with pytest.raises(UserError, match=r"'Broken-v0' cannot be made.*RuntimeError: no licence"):
        make("Broken-v0", seed=0)


def test_a_module_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="ZeroDivisionError"):
        make("broken_module:Any-v0", seed=0)
