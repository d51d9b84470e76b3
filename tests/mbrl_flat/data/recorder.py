"""Episodes whose every number says where it belongs, played into a replay."""

import numpy as np

from mbrl_flat.specs import Continuous, EnvSpec

SPEC = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=8)


def obs_at(env_index, episode, t):
    return {"state": np.array([env_index, episode, t], np.float32)}


class Recorder:
    """Plays episodes into a replay; every number stored says where it belongs."""

    def __init__(self, replay):
        self.replay = replay
        self.episode = [-1] * replay.num_envs
        self.t = [0] * replay.num_envs
        self.heldout = {}

    def begin(self, env_index):
        self.episode[env_index] += 1
        self.t[env_index] = 0
        self.replay.begin(env_index, obs_at(env_index, self.episode[env_index], 0))
        self.heldout[env_index, self.episode[env_index]] = bool(self.replay.current[env_index] % 2)

    def step(self, env_index, *, terminated=False, done=False):
        t, episode = self.t[env_index], self.episode[env_index]
        self.t[env_index] += 1
        self.replay.add(
            env_index,
            np.array([episode, t], np.float32),
            float(100 * episode + t),
            obs_at(env_index, episode, t + 1),
            terminated=terminated,
            done=done,
        )

    def play(self, env_index, length, *, terminated=False):
        self.begin(env_index)
        for t in range(length):
            last = t == length - 1
            self.step(env_index, terminated=terminated and last, done=last)


def starts(batch):
    """Lane, episode and time at which each subsequence begins."""
    return [tuple(int(x) for x in row) for row in batch.obs["state"][:, 0].tolist()]
