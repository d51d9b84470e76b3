"""Three different errors of value estimates, told apart by name, with intervals over episodes.

==================  ===========================  ============================================
name                estimate                     judged by the return of
==================  ===========================  ============================================
``probe/value``     the critic, of the policy    the policy itself: the critic's own error
``probe/planner``   the plan, with the critic    the planner: what a decision was based on
                    at its end
``probe/mixed``     the critic, of the policy    the planner: also holds how much better (or
                                                 worse) planning is, so a negative bias is no
                                                 underestimation
==================  ===========================  ============================================

Steps of one episode share its fate, so intervals resample whole episodes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.subject import measured_weights
from mbrl_flat.diagnostics.value_error import estimates_and_returns, value_error
from mbrl_flat.protocols import Inspectable
from mbrl_flat.seeding import restored_rng
from mbrl_flat.stats import Interval


@torch.no_grad()
def with_critic(agent: Inspectable, episode: Episode) -> Episode:
    """Replace an episode's estimates by those of the agent's critic at its observations.

    Args:
        agent: Whose critic; it and all random streams stay as they are.
        episode: The record.

    Returns:
        The same record with ``value`` ``[T]`` of the critic.
    """
    reward = episode.reward[None]
    terminated = torch.zeros_like(reward)
    terminated[:, -1] = float(episode.terminated)
    batch = Batch(
        obs={name: value[None] for name, value in episode.obs.items()},
        action=episode.action[None],
        reward=reward,
        terminated=terminated,
    )
    with measured_weights(agent), restored_rng():
        latent = agent.posterior(batch)[0, :-1]
        return replace(episode, value=agent.value(latent).cpu())


def mixed_metrics(agent: Inspectable, planned: Sequence[Episode]) -> dict[str, float]:
    """``probe/mixed/*``: the critic of the policy judged by the returns of the planner."""
    result = value_error([with_critic(agent, episode) for episode in planned], agent.discount)
    if result["count"] == 0.0:
        return {}
    return {f"probe/mixed/{name}": value for name, value in result.items()}


def bias_interval(
    episodes: Sequence[Episode],
    discount: float,
    *,
    rng: np.random.Generator,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the mean error, resampling whole episodes with replacement.

    Args:
        episodes: The records.
        discount: ``gamma``.
        rng: Source of the resamples.
        num_resamples: How many.
        confidence: Coverage that is aimed at.

    Returns:
        The interval; its bounds are NaN for fewer than two episodes that can be judged, and so is
        the bias for none.

    Raises:
        ValueError: If ``confidence`` is not within (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie within (0, 1), got {confidence}.")
    errors = [v - g for v, g in (estimates_and_returns(e, discount) for e in episodes)]
    if all(len(error) == 0 for error in errors):
        pairs = (estimates_and_returns(e, discount, truncation="bootstrap") for e in episodes)
        errors = [v - g for v, g in pairs]
    sums = np.array([float(error.sum()) for error in errors if len(error) > 0])
    counts = np.array([float(len(error)) for error in errors if len(error) > 0])
    if len(sums) == 0:
        return Interval(np.nan, np.nan, np.nan)
    bias = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Interval(np.nan, bias, np.nan)
    picks = rng.integers(len(sums), size=(num_resamples, len(sums)))
    resampled = sums[picks].sum(1) / counts[picks].sum(1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, (tail, 1.0 - tail))
    return Interval(float(low), bias, float(high))
