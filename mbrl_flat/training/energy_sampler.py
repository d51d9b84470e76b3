r"""Replay of what is rare to the world model: subsequences chosen by their energy.

Every ``every`` updates a sample of stored subsequences is encoded, each by its first latent and
action,

.. math::
    x = [z_t, a_t], \qquad E_s(x_i) = -s^2 \log \frac{1}{M - 1}
        \sum_{j \neq i} e^{-|x_i - x_j|^2 / (2 s^2)},

with the median distance to the fifth neighbour as the width s. A policy chooses from them what is
kept: those of the highest energy, which a modern Hopfield network forgets first, or any other of
``POLICIES`` in ``data/selection_policies.py``. A fixed share of every batch is then drawn from what
is kept, the rest uniformly as ever. Energies are recomputed with every choice, as the encoder
moves.

References:
    Takeda, Oizumi, Karakida, "Continual Learning in Modern Hopfield Networks with an Application
    to Diffusion Models", arXiv:2605.27975: energy as the measure of what to replay.

Deviations from the paper:
    Its samples are images of a task that is over; here they are transitions of a replay that
    grows. Classes, for the policy that balances them, are episodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.hopfield_energy import neighbour_width, smoothed_energy
from mbrl_flat.data.replay import Replay
from mbrl_flat.data.selection_policies import POLICIES, choose_replay
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.interfaces import Agent, Inspectable
from mbrl_flat.settings import CheckedSettings, setting

UNIFORM = "uniform"
"""The policy that draws every stored subsequence as likely as any other, as without this module."""


@dataclass(kw_only=True)  # not frozen: OmegaConf would refuse overrides
class SelectionConfig(CheckedSettings):
    """How the subsequences of a batch are chosen.

    Attributes:
        policy: ``uniform``, or what is kept: ``top_energy``, ``guarded_top_energy`` (without the
            highest hundredth), ``bottom_energy``, ``random``, ``class_balanced`` or ``cover``.
        share: Share of every batch that is drawn from what is kept.
        candidates: Stored subsequences that are looked at in a choice.
        keep: Share of them that is kept.
        every: Updates between two choices.
    """

    policy: str = UNIFORM
    share: float = setting(0.25, "(0, 1]")
    candidates: int = setting(2048, "[2, inf)")
    keep: float = setting(0.1, "(0, 1]")
    every: int = setting(1000, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [UNIFORM, *(name for name in POLICIES if name != "none")]
        if self.policy not in known:
            raise UnknownNameError("replay.policy", self.policy, known)


class EnergySampler:
    """Draws a share of every batch from subsequences that a replay policy has chosen.

    Args:
        replay: The replay whose subsequences are chosen.
        agent: Who learns; its latents are the memories.
        config: Policy, energy and how many candidates there are for each place of a batch.
        seed: Determines candidates and choices; with ``share`` next to nothing, batches are those
            of uniform replay.

    Raises:
        UserError: If the agent has no latents to look at.
    """

    def __init__(self, replay: Replay, agent: Agent, config: SelectionConfig, *, seed: int) -> None:
        if not isinstance(agent, Inspectable):
            raise UserError(
                f"replay.policy={config.policy} looks at the latents of a world model, and this "
                f"agent has none; leave it at uniform."
            )
        self.replay, self.agent, self.config = replay, agent, config
        self.encoder: Inspectable = agent
        self.num_replayed = round(config.share * agent.batch_size)
        self.chosen = np.zeros((0, 2), np.int64)
        self.updates = 0
        self._rng = np.random.default_rng([seed, 3])

    def __call__(self, rng: np.random.Generator) -> Batch:
        """Draw one batch: what is uniform from ``rng``, the rest from the sampler's own stream."""
        length, across = self.agent.sequence_length, self.agent.across_episodes
        if self.updates % self.config.every == 0:
            self.chosen = self.choose()
        self.updates += 1
        self.chosen = self.replay.still_valid(self.chosen, length, across_episodes=across)
        count = self.num_replayed if len(self.chosen) else 0
        starts = self.replay.starts(
            self.agent.batch_size - count, length, rng=rng, across_episodes=across
        )
        if count:
            replayed = self.chosen[self._rng.integers(len(self.chosen), size=count)]
            starts = np.concatenate([starts, replayed])
        return self.replay.gather(starts, length)

    def choose(self) -> np.ndarray:
        """Select from some stored subsequences; return where the selected ones begin ``[M, 2]``."""
        config, length = self.config, self.agent.sequence_length
        starts = self.replay.starts(
            config.candidates, length, rng=self._rng, across_episodes=self.agent.across_episodes
        )
        # The draw is with replacement; a subsequence next to itself would have no energy.
        starts = np.unique(starts, axis=0)
        memory = self._memories(starts)
        index = choose_replay(
            config.policy,
            energy=energies(memory).numpy(),
            labels=self._episodes(starts),
            x=memory.numpy(),
            num=max(round(config.keep * len(starts)), 1),
            seed=int(self._rng.integers(2**31)),
        )
        return starts[index]

    def _memories(self, starts: np.ndarray) -> Tensor:
        """First latent and action of each subsequence, float64 ``[M, D + A]`` on the CPU."""
        parts: list[Tensor] = []
        size = self.agent.batch_size
        for begin in range(0, len(starts), size):
            batch = self.replay.gather(starts[begin : begin + size], self.agent.sequence_length)
            latent = self.encoder.posterior(batch)[:, 0].double().cpu()
            parts.append(torch.cat([latent, batch.action[:, 0].double().cpu()], 1))
        return torch.cat(parts)

    def _episodes(self, starts: np.ndarray) -> np.ndarray:
        episode = self.replay.arrays["episode"]
        return episode[starts[:, 0], starts[:, 1] % self.replay.slots_per_env]

    def state_dict(self) -> dict[str, Any]:
        """What is kept, when the next choice is due, and the stream."""
        return {
            "chosen": torch.from_numpy(self.chosen.copy()),
            "updates": self.updates,
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.chosen = state["chosen"].cpu().numpy()
        self.updates = state["updates"]
        self._rng.bit_generator.state = state["rng"]


def energies(memory: Tensor) -> Tensor:
    """Energy ``[M]`` of each memory ``[M, D]`` among the others; zeros where all are the same."""
    width = neighbour_width(memory)
    if width == 0.0:
        return torch.zeros(len(memory), dtype=memory.dtype)
    return smoothed_energy(memory, memory, scale=width, leave_out=torch.arange(len(memory)))
