"""Recorded episodes as tensors, cut into subsequences, with the returns that followed."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.errors import UserError

_BOUND = 10.0


@dataclass(frozen=True, kw_only=True)
class Subsequences:
    """B subsequences of T transitions.

    Attributes:
        batch: The subsequences; the observation is the entry ``state``.
        returns: Discounted return that followed each action, ``[B, T]``.
    """

    batch: Batch
    returns: Tensor

    @property
    def obs(self) -> Tensor:
        """Observations ``[B, T + 1, n]``."""
        return self.batch.obs["state"]


class Scale(NamedTuple):
    """Mean and standard deviation of observations, ``[n]`` each, in float64."""

    mean: Tensor
    deviation: Tensor

    def apply(self, obs: Tensor) -> Tensor:
        """Standardise observations ``[..., n]``, cut off at ten deviations."""
        scaled = (obs - self.mean) / self.deviation
        return scaled.clamp(-_BOUND, _BOUND).float()


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """E whole episodes of T transitions.

    Attributes:
        obs: ``[E, T + 1, n]``.
        action: ``[E, T, A]``.
        reward: ``[E, T]``.
        returns: ``[E, T]``.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    returns: Tensor

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], *, length: int, discount: float) -> "Transitions":
        """Take what was recorded, with the returns of the whole and the first part of the rest.

        Args:
            arrays: What ``Recording.load`` gave.
            length: Transitions kept of each episode.
            discount: Of the returns; what lies beyond the recorded tail counts as zero.

        Returns:
            The episodes.
        """
        reward = torch.from_numpy(arrays["reward"])
        return cls(
            obs=torch.from_numpy(arrays["obs"][:, : length + 1]),
            action=torch.from_numpy(arrays["action"][:, :length]),
            reward=reward[:, :length],
            returns=discounted_sums(reward, discount)[:, :length],
        )

    def __len__(self) -> int:
        return len(self.obs)

    def take(self, episodes: np.ndarray) -> "Transitions":
        """Choose some episodes, in this order."""
        index = torch.from_numpy(episodes)
        return Transitions(
            obs=self.obs[index],
            action=self.action[index],
            reward=self.reward[index],
            returns=self.returns[index],
        )

    def standardised(self, by: "Transitions") -> "Transitions":
        """Scale observations so that those of ``by`` have mean 0 and deviation 1.

        Args:
            by: Episodes that give the scale.

        Returns:
            The same episodes; entries are cut off at ten deviations, as touch sensors have very
            heavy tails.
        """
        obs = by.scale.apply(self.obs)
        return Transitions(obs=obs, action=self.action, reward=self.reward, returns=self.returns)

    @property
    def scale(self) -> Scale:
        """Mean and standard deviation over all steps of all episodes."""
        flat = self.obs.flatten(0, 1).double()
        return Scale(flat.mean(0), flat.std(0).clamp_min(1e-6))

    def subsequences(self, episode: np.ndarray, start: np.ndarray, length: int) -> Subsequences:
        """Cut out subsequences ``[B]`` of ``length`` transitions."""
        row = torch.from_numpy(episode)[:, None]
        step = torch.from_numpy(start)[:, None] + torch.arange(length + 1)
        reward = self.reward[row, step[:, :-1]]
        batch = Batch(
            obs={"state": self.obs[row, step]},
            action=self.action[row, step[:, :-1]],
            reward=reward,
            terminated=torch.zeros_like(reward),
        )
        return Subsequences(batch=batch, returns=self.returns[row, step[:, :-1]])

    def draw(self, num: int, length: int, *, rng: np.random.Generator) -> Subsequences:
        """Draw subsequences uniformly over all there are."""
        self._check(length)
        episode = rng.integers(len(self), size=num)
        return self.subsequences(episode, rng.integers(self._starts(length), size=num), length)

    def every(self, stride: int, length: int) -> Subsequences:
        """Cut subsequences that begin at every ``stride``-th step of every episode."""
        self._check(length)
        starts = np.arange(0, self._starts(length), stride)
        episode = np.repeat(np.arange(len(self)), len(starts))
        return self.subsequences(episode, np.tile(starts, len(self)), length)

    def _starts(self, length: int) -> int:
        return self.action.shape[1] - length + 1

    def _check(self, length: int) -> None:
        if self._starts(length) < 1:
            raise UserError(
                f"Subsequences of {length} transitions do not fit into episodes of "
                f"{self.action.shape[1]}; record longer ones or shorten context and horizon."
            )


def discounted_sums(reward: Tensor, discount: float) -> Tensor:
    """``G_t = r_t + gamma G_{t+1}`` of rewards ``[E, T]``, zero beyond the end, ``[E, T]``."""
    sums, running = [], torch.zeros(len(reward), dtype=torch.float64)
    for step in reward.double().flip(1).unbind(1):
        running = step + discount * running
        sums.append(running)
    return torch.stack(sums[::-1], 1).to(reward.dtype)
