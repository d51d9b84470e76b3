"""What some agents show of themselves beyond what every probe needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch

from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Inspectable
from mbrl_flat.optim.averaging import evaluation_params


@runtime_checkable
class LearnsFromSequences(Protocol):
    """Says how long the subsequences are that it learns from."""

    @property
    def sequence_length(self) -> int:
        """Transitions in a subsequence."""
        ...


@runtime_checkable
class TrainsWithOneOptimizer(Protocol):
    """Shows who trains the weights of its world model."""

    optimizer: torch.optim.Optimizer


def optimizer_of(agent: Inspectable) -> torch.optim.Optimizer | None:
    """Who trains the agent's world model, if it shows."""
    return agent.optimizer if isinstance(agent, TrainsWithOneOptimizer) else None


@contextmanager
def measured_weights(agent: Inspectable) -> Iterator[None]:
    """Hold the weights that the agent acts with, where the optimizer keeps others for training."""
    optimizer = optimizer_of(agent)
    if optimizer is None:
        yield
        return
    with evaluation_params(optimizer):
        yield


def sequence_length_of(agent: Inspectable, setting: int | None) -> int:
    """Return the length asked for, or the one that the agent learns from.

    Args:
        agent: The agent.
        setting: What the user asked for, if anything.

    Returns:
        Transitions in a subsequence.

    Raises:
        UserError: If neither says.
    """
    if setting is not None:
        return setting
    if isinstance(agent, LearnsFromSequences):
        return agent.sequence_length
    raise UserError(
        f"{type(agent).__name__} does not say how long the subsequences are that it learns from; "
        f"set the probe's sequence_length."
    )
