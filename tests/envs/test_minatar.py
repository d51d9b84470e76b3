"""The five games of MinAtar."""

from functools import partial

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mbrl_flat.envs import make_vector, minatar, restore_vector, spec_of, vector_state
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Discrete, EnvSpec


@pytest.mark.parametrize("game", minatar.GAMES)
@pytest.mark.parametrize("obs", ["grid", "rgb"])
def test_the_checker_of_gymnasium_is_content(game, obs):
    check_env(minatar.make(game, seed=0, obs=obs).unwrapped, skip_render_check=True)


def test_the_spec_says_shapes_and_units():
    vector = make_vector(partial(minatar.make, "breakout"), num_envs=1, seed=0)
    assert spec_of(vector) == EnvSpec(
        obs={"grid": (4, 16, 16)},
        action=Discrete(num=3),
        episode_length=5000,
        images=frozenset({"grid"}),
    )


@pytest.mark.parametrize("size", [10, 16, 21])
def test_a_grid_is_the_state_of_the_game_in_the_middle_of_nothing(size):
    env = minatar.make("seaquest", seed=0, size=size)
    obs, _ = env.reset(seed=3)
    for action in (0, 1, 2, 1, 5):
        obs = env.step(action)[0]
    state = env.unwrapped._game.state().transpose(2, 0, 1)
    edge = (size - 10) // 2
    middle = obs["grid"][:, edge : edge + 10, edge : edge + 10]
    assert np.array_equal(middle, 255 * state)
    assert obs["grid"].sum() == middle.sum()
    assert middle.any()


def test_every_object_has_a_colour_of_its_own_and_cells_are_squares():
    env = minatar.make("breakout", seed=0, obs="rgb", size=64)
    image = env.reset(seed=0)[0]["rgb"]
    assert image.shape == (3, 64, 64)
    assert not image[:, :2].any()
    cells = image[:, 2:62, 2:62].reshape(3, 10, 6, 10, 6)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert len(np.unique(minatar.object_colours(10), axis=0)) == 11
    black = (cells[:, :, 0, :, 0] == 0).all(0)
    assert np.array_equal(black, ~env.unwrapped._game.state().any(2))


def test_restored_games_go_on_bit_for_bit_beyond_the_next_reset():
    factory = partial(minatar.make, "freeway")  # always lasts 2500 frames
    envs, twins = (make_vector(factory, num_envs=2, seed=3) for _ in range(2))
    envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(30):
        current = envs.step(rng.integers(3, size=2))[0]["grid"].copy()
    assert np.array_equal(restore_vector(twins, vector_state(envs))["grid"], current)
    for _ in range(2):
        for _ in range(20):
            action = rng.integers(3, size=2)
            ours, theirs = envs.step(action), twins.step(action)
            assert np.array_equal(ours[0]["grid"], theirs[0]["grid"])
            assert np.array_equal(ours[1], theirs[1])
        ours, theirs = envs.reset()[0], twins.reset()[0]
        assert np.array_equal(ours["grid"], theirs["grid"])


def test_a_time_limit_truncates_and_a_lost_game_terminates():
    env = minatar.make("breakout", seed=0, max_frames=3)
    env.reset()
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]
    env = minatar.make("breakout", seed=0)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(200)]
    assert (True, False) in ends
    assert (False, True) not in ends


def test_sticky_actions_of_zero_take_every_action():
    env = minatar.make("breakout", seed=0, sticky=0.0)
    env.reset(seed=0)
    before = env.unwrapped._game.env.pos
    for _ in range(3):
        env.step(1)
    assert env.unwrapped._game.env.pos == max(before - 3, 0)


@pytest.mark.parametrize(
    ("task", "setting", "message"),
    [
        ("brekout", {}, "'brekout' for env=minatar; did you mean 'breakout'"),
        ("breakout", {"obs": "pixels"}, "Unknown obs 'pixels' for env=minatar"),
        ("breakout", {"size": 8}, "env.size must be at least 10, got 8"),
        ("breakout", {"sticky": 1.5}, r"env.sticky must lie in \[0, 1\), got 1.5"),
        ("breakout", {"max_frames": 0}, "env.max_frames must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(task, setting, message):
    with pytest.raises(UserError, match=message):
        minatar.make(task, seed=0, **setting)


def test_an_image_is_rendered_only_where_it_was_asked_for():
    env = minatar.make("asterix", seed=0, render=True)
    env.reset()
    assert env.render().shape == (160, 160, 3)
    assert minatar.make("asterix", seed=0).render() is None
