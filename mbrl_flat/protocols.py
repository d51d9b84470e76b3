"""The seams of the project. Structural: nothing has to inherit.

The data flows downwards::

    EnvFactory -> environment -> Replay -> Batch -> WorldModel.targets (once, without gradient)
        -> optimizer.step(closure over WorldModel.loss) -> Planner and policy -> Metrics -> Logger
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import gymnasium as gym
from torch import Tensor

from mbrl_flat.data.batch import Batch

Observation = dict[str, Tensor]
"""Named, batch-first tensors ``[B, ...]``."""

Targets = dict[str, Tensor]
"""Everything in a loss that the weights under optimization must not move."""

Metrics = dict[str, Tensor | float]
"""Detached scalars; they are read from the device once, when they are logged."""

AgentState = dict[str, Tensor]
"""What an agent carries from step to step for each of N environments; every tensor is [N, ...]."""

Mode = Literal["explore", "eval"]


class EnvFactory(Protocol):
    """Makes one environment."""

    def __call__(self, *, seed: int, render: bool = False) -> gym.Env[Any, Any]:
        """Build an environment whose every random draw follows from ``seed``."""
        ...


class WorldModel(Protocol):
    """A model whose loss may be evaluated any number of times for one set of targets."""

    def targets(self, batch: Batch) -> Targets:
        """Compute what the loss regresses on, without gradient, at the current weights."""
        ...

    def loss(self, batch: Batch, targets: Targets) -> tuple[Tensor, Metrics]:
        """Return the scalar loss and its parts; draws only from torch's global generator."""
        ...


class Agent(Protocol):
    """Acts, learns and can be saved; knows neither the optimizer's method nor the environment."""

    def initial_state(self, num_envs: int) -> AgentState:
        """Return the state of ``num_envs`` environments before their first step."""
        ...

    def reset_state(self, state: AgentState, is_first: Tensor) -> AgentState:
        """Return ``state`` with the rows where ``is_first`` ``[N]`` made new."""
        ...

    def act(self, obs: Observation, state: AgentState, *, mode: Mode) -> tuple[Tensor, AgentState]:
        """Choose actions ``[N, A]`` for observations ``[N, ...]``."""
        ...

    def update(self, batch: Batch) -> Metrics:
        """Make one learning step on a batch of sequences ``[B, T]``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update and the next action depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


class Logger(Protocol):
    """Takes rows of metrics."""

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Take one row."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...
