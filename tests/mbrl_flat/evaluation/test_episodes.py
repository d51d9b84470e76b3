"""Evaluation: whole episodes, the same for the same seed, and no trace left behind."""

import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from mbrl_flat.data.episode import Episode
from mbrl_flat.evaluation.episodes import as_tensors, episode_seeds, evaluate, summarize
from mbrl_flat.runtime.seeding import rng_state
from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=9)


class Countdown(gym.Env):
    """Ends after a random number of steps; says in its observation when it was begun and where."""

    observation_space = gym.spaces.Dict(
        {"state": gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)}
    )
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self):
        self.metadata = {"render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.begun = 0
        self.left = 0

    def observe(self):
        return {"state": np.array([self.token, self.left, self.begun], np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        random.random()
        self.begun += 1
        self.token = self.np_random.uniform()
        self.left = int(self.np_random.integers(2, 9))
        self.terminates = bool(self.np_random.integers(2))
        return self.observe(), {}

    def step(self, action):
        assert self.left > 0, "stepped an environment that has ended"
        self.left -= 1
        torch.rand(1)
        ended = self.left == 0
        return (
            self.observe(),
            float(action.sum()) + np.random.uniform() * 0.0,  # noqa: NPY002 - simulators do
            ended and self.terminates,
            ended and not self.terminates,
            {"success": self.token > 0.5} if ended else {},
        )

    def render(self):
        return np.full((4, 5, 3), self.left, np.uint8)


class Actor:
    """Acts on what it sees, on its generator and on how long it has been acting."""

    def __init__(self, *, noise=0.0):
        self.noise = noise
        self.modes = set()

    def initial_state(self, num_envs):
        return {"steps": torch.zeros(num_envs), "value": torch.zeros(num_envs)}

    def act(self, obs, state, *, mode, generator):
        self.modes.add(mode)
        seen = obs["state"][:, :1]
        drawn = torch.randn(len(seen), 2, generator=generator)
        action = torch.tanh(seen + 0.1 * state["steps"][:, None] + self.noise * drawn)
        steps = state["steps"] + 1.0
        return action, {"steps": steps, "value": 10.0 * steps}


def make_envs(num):
    return SyncVectorEnv([Countdown] * num, autoreset_mode=AutoresetMode.DISABLED)


def run(num_envs=3, *, episodes=5, seed=0, noise=1.0, **kwargs):
    return evaluate(
        Actor(noise=noise), make_envs(num_envs), SPEC, episodes=episodes, seed=seed, **kwargs
    )


def assert_same_episodes(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.obs["state"][:, :2], b.obs["state"][:, :2])
        assert torch.equal(a.action, b.action)
        assert torch.equal(a.reward, b.reward)
        assert (a.terminated, a.success) == (b.terminated, b.success)


@pytest.mark.parametrize(("num_envs", "episodes"), [(1, 3), (3, 1), (3, 3), (3, 5), (4, 12)])
def test_every_episode_is_whole_and_there_are_as_many_as_asked_for(num_envs, episodes):
    played = run(num_envs, episodes=episodes)

    assert len(played) == episodes
    for episode in played:
        left = episode.obs["state"][:, 1]
        assert episode.obs["state"].shape == (episode.length + 1, 3)
        assert episode.action.shape == (episode.length, 2)
        assert episode.reward.shape == episode.value.shape == (episode.length,)
        assert torch.equal(left, torch.arange(episode.length, -1.0, -1.0))
        assert len(episode.obs["state"][:, 0].unique()) == 1
        assert len(episode.obs["state"][:, 2].unique()) == 1


def test_rewards_and_values_are_those_of_the_recorded_actions():
    for episode in run():
        torch.testing.assert_close(episode.reward, episode.action.sum(-1))
        assert torch.equal(episode.value, 10.0 * torch.arange(1.0, episode.length + 1))


def test_terminations_and_truncations_are_told_apart_and_success_is_kept():
    played = run(4, episodes=40)

    assert {episode.terminated for episode in played} == {True, False}
    for episode in played:
        assert episode.success == float(episode.obs["state"][0, 0] > 0.5)


def test_the_same_seed_gives_the_same_episodes_and_another_gives_others():
    assert_same_episodes(run(seed=3), run(seed=3))
    assert not torch.equal(run(seed=3)[0].obs["state"][:1], run(seed=4)[0].obs["state"][:1])


def test_what_was_drawn_before_does_not_matter():
    envs = make_envs(3)
    first = evaluate(Actor(noise=1.0), envs, SPEC, episodes=5, seed=0)
    torch.rand(17)
    np.random.rand(17)  # noqa: NPY002 - the global stream is what is meant

    second = evaluate(Actor(noise=1.0), envs, SPEC, episodes=5, seed=0)

    assert_same_episodes(first, second)


def test_the_number_of_environments_does_not_change_the_episodes_of_a_deterministic_actor():
    alone, together = (run(num, episodes=24, noise=0.0) for num in (1, 4))

    assert_same_episodes(alone, together)


def test_all_episodes_start_apart():
    tokens = [float(episode.obs["state"][0, 0]) for episode in run(3, episodes=9)]

    assert len(set(tokens)) == 9


def test_no_global_stream_is_moved():
    before = rng_state()

    run()

    after = rng_state()
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert before["numpy"][2:] == after["numpy"][2:]
    assert torch.equal(before["torch"], after["torch"])


def test_streams_are_put_back_when_an_episode_fails():
    class Failing(Actor):
        def act(self, obs, state, *, mode, generator):
            torch.rand(1)
            raise RuntimeError("no more")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no more"):
        evaluate(Failing(), make_envs(2), SPEC, episodes=2, seed=0)

    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("mode", ["eval", "policy"])
def test_the_actor_is_asked_in_the_given_mode(mode):
    actor = Actor()

    evaluate(actor, make_envs(1), SPEC, episodes=1, seed=0, mode=mode)

    assert actor.modes == {mode}


@pytest.mark.parametrize("num_envs", [1, 3])
def test_frames_of_the_first_episode_are_taken_and_of_no_other(num_envs):
    """A second round follows, and other environments play on after the first has ended."""
    frames = []

    episodes = run(num_envs, episodes=num_envs + 1, frame_sink=frames.append)

    assert max(episode.length for episode in episodes) > episodes[0].length
    assert [int(frame[0, 0, 0]) for frame in frames] == list(range(episodes[0].length, 0, -1))


def test_seeds_of_episodes_are_distinct_and_do_not_depend_on_their_number():
    seeds = episode_seeds(7, 100)

    assert len(set(seeds)) == 100
    assert episode_seeds(7, 10) == seeds[:10]
    assert set(episode_seeds(8, 100)).isdisjoint(seeds)
    assert all(type(seed) is int for seed in seeds)


def test_an_observation_is_copied():
    arrays = {"state": np.zeros(3, np.float32)}

    tensors = as_tensors(arrays)
    arrays["state"][:] = 1.0

    assert not tensors["state"].any()


def episode_of(rewards, success=None):
    reward = torch.tensor(rewards)
    length = len(rewards)
    return Episode(
        obs={"state": torch.zeros(length + 1, 3)},
        action=torch.zeros(length, 2),
        reward=reward,
        terminated=False,
        success=success,
    )


def test_a_summary_is_worked_by_hand():
    row = summarize([episode_of([1.0, 2.0], 1.0), episode_of([4.0, 1.0, 2.0, 0.0], 0.0)])

    assert row["eval/return_mean"] == 5.0
    assert row["eval/return_std"] == pytest.approx(8.0**0.5)
    assert row["eval/length_mean"] == 3.0
    assert row["eval/success_rate"] == 0.5


def test_a_normalised_score_is_where_the_return_lies_between_its_zero_and_its_one():
    row = summarize([episode_of([1.0, 2.0]), episode_of([4.0, 3.0])], (1.0, 9.0))

    assert row["eval/normalised_score"] == (5.0 - 1.0) / 8.0


def test_one_episode_has_no_spread_and_success_is_left_out_where_nobody_tells():
    row = summarize([episode_of([1.0])])

    assert row == {"eval/return_mean": 1.0, "eval/return_std": 0.0, "eval/length_mean": 1.0}
