"""Uniform random actions: the baseline of every table, and the smallest example of an agent."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import AgentState, Metrics, Mode, Observation
from mbrl_flat.specs import EnvSpec


class RandomAgent:
    """Acts uniformly and learns nothing; optimizer settings do not concern it.

    Args:
        spec: The environment's shapes.
        unused: Whatever else agents are built with.
    """

    sequence_length = 1
    """It learns nothing: this and the next say what the replay has to hold at least."""
    batch_size = 1
    """See ``sequence_length``."""
    across_episodes = False
    """Subsequences stay within an episode."""
    batch_coupling = ""
    """Nothing couples the rows of a batch."""

    def __init__(self, spec: EnvSpec, **unused: Any) -> None:
        del unused
        self.spec = spec

    def initial_state(self, num_envs: int) -> AgentState:
        """Zero values ``[N]``."""
        return {"value": torch.zeros(num_envs)}

    def reset_state(self, state: AgentState, is_first: Tensor) -> AgentState:
        """Return the state ``[N]``; there is nothing to reset."""
        del is_first
        return state

    def act(
        self, obs: Observation, state: AgentState, *, mode: Mode, generator: torch.Generator | None
    ) -> tuple[Tensor, AgentState]:
        """Draw actions ``[N, A]``."""
        del mode
        num = next(iter(obs.values())).shape[0]
        device = None if generator is None else generator.device
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
        return self.spec.action.random(num, np.random.default_rng(seed)), state

    def update(self, batch: Batch) -> Metrics:
        """Do nothing."""
        del batch
        return {}

    def param_norm(self) -> Tensor:
        """Zero, a scalar: there are no weights."""
        return torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""
        del state
