"""Actions for observations as an environment gives them, with the state kept from call to call."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from mbrl_flat.cli.environment_units import EnvironmentUnits
from mbrl_flat.interfaces import Agent, AgentState, Mode
from mbrl_flat.specs import EnvSpec


class Predictor:
    """Keeps the planner's or the recurrent state of an agent, one for each row.

    Args:
        agent: The agent that acts.
        spec: Shapes of its observations and actions, without the leading axis.
        env: The environment as the run wraps it.
        device: Where the agent is.
    """

    def __init__(
        self, agent: Agent, spec: EnvSpec, env: gym.Env[Any, Any], device: torch.device
    ) -> None:
        self.agent, self.spec, self._units = agent, spec, EnvironmentUnits(env)
        self._generator, self._rows = torch.Generator(device), 0
        self._state: AgentState = {}

    def predict(
        self, obs: Any, *, is_first: bool | np.ndarray, mode: Mode, seed: int
    ) -> np.ndarray:
        """Actions for one observation or a batch; see ``TrainableAgent.predict``."""
        entries, batched = self._units.entries(obs, self.spec)
        rows = len(next(iter(entries.values())))
        tensors = {name: torch.as_tensor(value) for name, value in entries.items()}
        begins = np.broadcast_to(np.asarray(is_first, dtype=bool), (rows,))
        if self._rows != rows:
            self._state, self._rows = self.agent.initial_state(rows), rows
            self._generator.manual_seed(seed)
        if begins.any():
            self._state = self.agent.reset_state(self._state, torch.from_numpy(begins.copy()))
        action, self._state = self.agent.act(
            tensors, self._state, mode=mode, generator=self._generator
        )
        actions = self._units.actions(action.cpu().numpy(), self.spec)
        return actions if batched else actions[0]
