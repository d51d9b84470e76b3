"""What the probes need of some agents beyond ``Inspectable``, and batches to measure on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.probe import NothingToMeasure
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Inspectable, TrainsWithOneOptimizer
from mbrl_flat.optim.averaging import evaluation_params


@runtime_checkable
class LearnsFromSequences(Protocol):
    """States the length of the subsequences that it learns from."""

    @property
    def sequence_length(self) -> int:
        """Transitions in a subsequence."""
        ...


@runtime_checkable
class LearnsAcrossEpisodes(Protocol):
    """States whether its subsequences run over the ends of episodes."""

    @property
    def across_episodes(self) -> bool:
        """Whether they do."""
        ...


def optimizer_of(agent: Inspectable) -> torch.optim.Optimizer | None:
    """The optimizer of the agent's world model, if it exposes one."""
    return agent.optimizer if isinstance(agent, TrainsWithOneOptimizer) else None


def measured_weights(agent: Inspectable) -> AbstractContextManager[None]:
    """Hold the weights that the agent acts with, where the optimizer keeps others for training."""
    optimizer = optimizer_of(agent)
    return nullcontext() if optimizer is None else evaluation_params(optimizer)


def sequence_length_of(agent: Inspectable, setting: int | None = None) -> int:
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
        f"{type(agent).__name__} does not state the length of the subsequences that it learns "
        f"from; set the probe's sequence_length."
    )


def training_batch(
    agent: Inspectable,
    replay: Replay,
    num: int,
    *,
    rng: np.random.Generator,
    length: int | None = None,
    heldout: bool = False,
) -> Batch:
    """Draw subsequences as the agent's updates do, across episodes where these do.

    Args:
        agent: The agent.
        replay: Where they come from.
        num: Number of subsequences B.
        rng: Source of the draw.
        length: Transitions; by default as many as the agent learns from.
        heldout: From held-out episodes, otherwise from those that it trains on.

    Returns:
        The batch.

    Raises:
        NothingToMeasure: If there is no such subsequence.
    """
    across = isinstance(agent, LearnsAcrossEpisodes) and agent.across_episodes
    length = sequence_length_of(agent, length)
    return _draw(replay, num, length, rng=rng, heldout=heldout, across=across)


def episode_batch(
    replay: Replay, num: int, length: int, *, rng: np.random.Generator, heldout: bool
) -> Batch:
    """Draw subsequences within one episode, which open-loop predictions need.

    Args:
        replay: Where they come from.
        num: Number of subsequences B.
        length: Transitions T of each.
        rng: Source of the draw.
        heldout: From held-out episodes, otherwise from those that are trained on.

    Returns:
        The batch.

    Raises:
        NothingToMeasure: If no episode is long enough.
    """
    return _draw(replay, num, length, rng=rng, heldout=heldout, across=False)


def _draw(
    replay: Replay, num: int, length: int, *, rng: np.random.Generator, heldout: bool, across: bool
) -> Batch:
    if not replay.can_sample(length, heldout=heldout, across_episodes=across):
        kind = "held-out episodes" if heldout else "episodes"
        where = "neighbouring " if across else ""
        hint = ""
        if heldout and replay.num_heldout == 0:
            hint = ", or heldout_fraction above 0 and a replay_capacity of three whole episodes"
        raise NothingToMeasure(
            f"the replay has no {length} transitions in a row in {where}{kind}; it needs longer "
            f"episodes, a smaller horizon or a longer run{hint}."
        )
    return replay.sample(num, length, rng=rng, heldout=heldout, across_episodes=across)
