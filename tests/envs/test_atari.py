"""Atari games through the arcade emulator."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from mbrl_flat.envs import atari, make_vector, restore_vector, spec_of, vector_state
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Discrete, EnvSpec


def play(env, actions):
    return [env.step(action) for action in actions]


def same(a, b):
    return all(
        np.array_equal(x[0]["rgb"], y[0]["rgb"]) and x[1:4] == y[1:4]
        for x, y in zip(a, b, strict=True)
    )


def test_the_checker_of_gymnasium_is_content():
    check_env(atari.make("pong", seed=0).unwrapped, skip_render_check=True)


def test_the_spec_says_shapes_units_and_the_range_of_the_human_normalised_score():
    vector = make_vector(partial(atari.make, "pong"), num_envs=1, seed=0)
    assert spec_of(vector) == EnvSpec(
        obs={"rgb": (3, 64, 64)},
        action=Discrete(num=6),
        episode_length=27_000,
        action_repeat=4,
        score_range=(-20.7, 14.6),
        images=frozenset({"rgb"}),
    )


def test_an_unknown_game_names_the_nearest_ones():
    with pytest.raises(UserError, match="'mspacman' for env=atari; did you mean 'ms_pacman'"):
        atari.make("mspacman", seed=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sticky": 1.0}, r"env.sticky must lie in \[0, 1\), got 1.0"),
        ({"size": 200}, r"env.size must lie in \[8, 160\], got 200"),
        ({"noop_max": -1}, "env.noop_max must be at least 0, got -1"),
        ({"action_repeat": 0}, "env.action_repeat must be at least 1, got 0"),
        (
            {"life_loss": "split", "frame_stack": 4},
            "life_loss=split takes env.frame_stack=1, got 4",
        ),
        ({"life_loss": "terminates"}, "'terminates' for env=atari; did you mean 'terminate'"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(UserError, match=message):
        atari.make("pong", seed=0, **setting)


def test_a_game_without_published_scores_has_no_normalised_score():
    assert atari.human_range("tetris") is None
    assert all(atari.human_range(game) is not None for game in atari.ATARI_100K)
    assert len(set(atari.ATARI_100K)) == 26


def test_an_episode_is_a_function_of_the_seed_whatever_was_played_before():
    actions = np.random.default_rng(0).integers(6, size=40)
    env, other = atari.make("pong", seed=0), atari.make("pong", seed=1)
    other.reset(seed=3)
    play(other, actions[::-1])
    first, second = env.reset(seed=5)[0], other.reset(seed=5)[0]
    assert np.array_equal(first["rgb"], second["rgb"])
    assert same(play(env, actions), play(other, actions))


def test_the_start_waits_for_one_to_noop_max_frames():
    env = atari.make("pong", seed=0, noop_max=7).unwrapped
    waited = set()
    for seed in range(40):
        env.reset(seed=seed)
        waited.add(env._ale.getEpisodeFrameNumber())
    assert waited == set(range(1, 8))


def test_an_observation_is_the_brighter_of_the_last_two_frames_and_rewards_are_summed():
    env, raw = atari.make("ms_pacman", seed=0), atari.make("ms_pacman", seed=0).unwrapped
    env.reset(seed=1)
    raw.reset(seed=1)
    for action in np.random.default_rng(0).integers(9, size=60):
        obs, reward, *_ = env.step(action)
        rewards, screens = [], []
        for _ in range(4):
            rewards.append(raw._ale.act(raw._actions[action]))
            screens.append(raw._ale.getScreenRGB())
        expected = raw._resize(np.maximum(screens[2], screens[3]))
        assert np.array_equal(obs["rgb"], expected)
        assert reward == sum(rewards)


def test_sticky_actions_repeat_the_last_one_as_often_as_asked():
    env = atari.make("pong", seed=0, sticky=0.25).unwrapped
    env.reset(seed=0)
    held = 0
    for frame in range(4000):
        wanted = env._actions[2 + frame % 2]
        env._act(wanted)
        held += env._last != wanted
    # An alternating action is held with probability p / (1 + p) = 0.2: sd 25.
    assert abs(held - 800) < 120


def test_a_time_limit_truncates():
    env = atari.make("pong", seed=0, max_frames=40)
    env.reset()
    ends = [step[2:4] for step in play(env, [0] * 10)]
    assert ends == [(False, False)] * 9 + [(False, True)]


@pytest.mark.parametrize("life_loss", atari.LIFE_LOSS)
def test_a_lost_life_is_told_and_the_game_goes_on(life_loss):
    env = atari.make("breakout", seed=0, life_loss=life_loss, noop_max=0)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    infos, lives = [], [5]
    for _ in range(120):
        _, _, terminated, truncated, info = env.step(rng.integers(4))
        assert not terminated
        assert not truncated
        infos.append(info)
        lives.append(env.unwrapped._ale.lives())
    lost = np.diff(lives) < 0
    assert lost.any()
    if life_loss == "ignore":
        assert not any(infos)
    else:
        assert [info["life_lost"] for info in infos] == lost.tolist()
        assert [info["new_episode"] for info in infos] == (lost & (life_loss == "split")).tolist()


@pytest.mark.parametrize("settings", [{}, {"sticky": 0.25, "frame_stack": 3}])
def test_a_restored_game_goes_on_bit_for_bit_beyond_the_next_reset(settings, tmp_path):
    factory = partial(atari.make, "breakout", **settings)
    envs = make_vector(factory, num_envs=2, seed=3)
    envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(30):
        current = envs.step(rng.integers(4, size=2))[0]["rgb"].copy()
    torch.save(vector_state(envs), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    twins = make_vector(factory, num_envs=2, seed=3)
    assert np.array_equal(restore_vector(twins, state)["rgb"], current)
    for mask in (np.array([True, False]), np.array([True, True])):
        for _ in range(20):
            action = rng.integers(4, size=2)
            ours, theirs = envs.step(action), twins.step(action)
            assert np.array_equal(ours[0]["rgb"], theirs[0]["rgb"])
            assert all(np.array_equal(x, y) for x, y in zip(ours[1:4], theirs[1:4], strict=True))
        ours = envs.reset(options={"reset_mask": mask})[0]["rgb"]
        assert np.array_equal(ours, twins.reset(options={"reset_mask": mask})[0]["rgb"])


def test_the_screen_is_rendered_only_where_it_was_asked_for():
    env = atari.make("pong", seed=0, render=True)
    env.reset()
    assert env.render().shape == (210, 160, 3)
    assert atari.make("pong", seed=0).render() is None


@pytest.mark.sim
@pytest.mark.parametrize("game", atari.ATARI_100K)
def test_every_game_makes_200_steps_and_shows_something(game):
    env = atari.make(game, seed=0, life_loss="terminate")
    obs, _ = env.reset(seed=1)
    rng = np.random.default_rng(0)
    shown = set()
    for _ in range(200):
        obs, reward, terminated, truncated, _ = env.step(rng.integers(env.action_space.n))
        assert env.observation_space.contains(obs)
        assert np.isfinite(reward)
        shown.add(obs["rgb"].tobytes())
        if terminated or truncated:
            env.reset()
    assert obs["rgb"].std() > 1
    assert len(shown) > 20
