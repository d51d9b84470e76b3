"""What chooses the subsequences that an agent learns from."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.interfaces import Agent


class Sampler(Protocol):
    """Draws the batches of a run."""

    def __call__(self, rng: np.random.Generator) -> Batch:
        """Draw one batch of the size and length that the agent learns from."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on, besides the replay, the agent and ``rng``."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


class UniformSampler:
    """Every stored subsequence is as likely.

    Args:
        replay: The replay that batches are drawn from.
        agent: The agent, which says batch size and sequence length.
    """

    def __init__(self, replay: Replay, agent: Agent) -> None:
        self.replay, self.agent = replay, agent

    def __call__(self, rng: np.random.Generator) -> Batch:
        """Draw one batch."""
        return self.replay.sample(
            self.agent.batch_size,
            self.agent.sequence_length,
            rng=rng,
            across_episodes=self.agent.across_episodes,
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
