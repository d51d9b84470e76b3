r"""How well an actor's value estimates predicted the returns that followed.

.. math::
    G_t = \sum_{s=t}^{T-1} \gamma^{s-t} r_s, \qquad
    \mathrm{bias} = \mathrm{mean}(\hat V_t - G_t), \qquad
    \mathrm{rmse} = \sqrt{\mathrm{mean}((\hat V_t - G_t)^2)}

A positive bias is overestimation. ``rmse_normalised`` is the RMSE divided by the standard
deviation of the returns (1 is as good as always saying their mean), ``spearman`` the rank
correlation of estimates and returns with average ranks for ties.

Estimates look beyond the end of an episode that was cut off by its time limit, recorded returns
do not. So of such an episode only steps count after which at most a share of ``tolerance`` of a
steady reward's value is missing, ``gamma^(T - t) <= tolerance``. What is missing counts as error
of the estimates: an exact one has a bias of the mean of ``gamma^(T - t) V`` over these steps.
``truncation=bootstrap`` adds ``gamma^(T - t)`` of the actor's own last estimate in its place. Then
an exact one has none, and other errors are seen less what is added of the last one. If no step
qualifies, all but the last of each are taken and bootstrapped. The result says of either.

A lost life that is recorded as a termination is one for the estimates that learn from the record:
they look no further, so returns are summed up to there alone.

Steps of one episode share its fate, so ``bias_low`` and ``bias_high``, the 95% interval of the
bias, resample whole episodes.

The return is of whoever acted, so the estimates have to be of the same: the planner's in planned
episodes, the policy's in those that the policy played.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.analysis.stats import Interval, spearman
from mbrl_flat.data.episode import Episode
from mbrl_flat.errors import UnknownNameError

Truncation = Literal["drop", "bootstrap"]


def discounted_returns(
    reward: Tensor, *, discount: float, tail: float = 0.0, ends: Tensor | None = None
) -> Tensor:
    """Return ``G_t = r_t + gamma (1 - d_t) G_{t+1}`` ``[T]`` of rewards ``[T]``, in float64.

    Args:
        reward: ``r_0..r_{T-1}``.
        discount: ``gamma``.
        tail: ``G_T``, the value beyond the end.
        ends: ``d_0..d_{T-1}``, bool: steps beyond which nothing counts; by default there are none.

    Returns:
        The discounted sums from each step on.
    """
    over = [False] * len(reward) if ends is None else ends.tolist()
    returns, running = [], tail
    for step, end in zip(reversed(reward.double().tolist()), reversed(over), strict=True):
        running = step + (0.0 if end else discount * running)
        returns.append(running)
    return torch.tensor(returns[::-1], dtype=torch.float64)


def estimates_and_returns(
    episode: Episode,
    discount: float,
    *,
    truncation: Truncation = "drop",
    tolerance: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """Pair the estimates of an episode with the returns that they can be judged by.

    Args:
        episode: The record; without estimates it yields no pair.
        discount: ``gamma``.
        truncation: ``drop`` what lies beyond the end of a truncated episode, or ``bootstrap`` it
            with the last estimate.
        tolerance: Largest weight ``gamma^(T - t)`` of what lies beyond; steps where it weighs more
            are left out.

    Returns:
        Estimates and returns, each float64 ``[M]`` with M at most T.
    """
    _check(truncation)
    value = episode.value.double()
    if value.numel() == 0:
        return value, value
    reward, ends, tail = episode.reward, episode.ends, 0.0
    if truncation == "bootstrap" and not ends[-1]:
        # The last estimate stands for its own step's return, and is not judged by itself.
        value, reward, ends, tail = value[:-1], reward[:-1], ends[:-1], float(value[-1])
    end_follows = ends.flip(0).cumsum(0).flip(0) > 0
    left = torch.arange(len(reward), 0, -1, dtype=torch.float64)
    kept = end_follows | (discount**left <= tolerance)
    returns = discounted_returns(reward, discount=discount, tail=tail, ends=ends)
    return value[kept], returns[kept]


def value_error(
    episodes: Sequence[Episode],
    discount: float,
    *,
    truncation: Truncation = "drop",
    tolerance: float = 0.05,
) -> dict[str, float]:
    """Compare estimates and returns over all steps of all episodes that can be judged.

    Args:
        episodes: The records.
        discount: ``gamma``.
        truncation: See ``estimates_and_returns``.
        tolerance: Likewise.

    Returns:
        ``bias`` with ``bias_low`` and ``bias_high``, ``rmse``, ``rmse_normalised``, ``spearman``,
        ``count``, and ``bootstrapped``: 1 if the tails of truncated episodes were estimated.
        Undefined ones are absent: without any pair all but ``count``, without spread the
        normalised and the rank one, with fewer than two episodes the bounds.
    """
    pairs = _pairs(episodes, discount, truncation, tolerance)
    if sum(len(value) for value, _ in pairs) == 0:
        truncation, tolerance = "bootstrap", 1.0
        pairs = _pairs(episodes, discount, truncation, tolerance)
    values = [value for value, _ in pairs if len(value) > 0]
    if not values:
        return {"count": 0.0}
    value, returns = torch.cat(values), torch.cat([g for _, g in pairs if len(g) > 0])
    error = value - returns
    rmse = float(error.square().mean().sqrt())
    result = {
        "bias": float(error.mean()),
        "rmse": rmse,
        "count": float(len(error)),
        "bootstrapped": float(truncation == "bootstrap"),
    }
    # The same resamples every time: the bounds are a function of the episodes.
    low, _, high = bias_interval([v - g for v, g in pairs], rng=np.random.default_rng(0))
    if np.isfinite(low):
        result |= {"bias_low": low, "bias_high": high}
    spread = float(returns.std(correction=0))
    # Rounding alone gives equal returns a spread of a few units in their last place.
    if spread > 1e-12 * float(returns.abs().max()):
        result["rmse_normalised"] = rmse / spread
        if float(value.std(correction=0)) > 0.0:
            result["spearman"] = spearman(value.numpy(), returns.numpy())
    return result


def bias_interval(
    errors: Sequence[Tensor],
    *,
    rng: np.random.Generator,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the mean error, resampling whole episodes with replacement.

    Args:
        errors: For each episode the errors of its steps ``[M]``; empty ones do not count.
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


def _check(truncation: str) -> None:
    if truncation not in {"drop", "bootstrap"}:
        raise UnknownNameError("truncation", truncation, ["drop", "bootstrap"])


def _pairs(
    episodes: Sequence[Episode], discount: float, truncation: Truncation, tolerance: float
) -> list[tuple[Tensor, Tensor]]:
    return [
        estimates_and_returns(episode, discount, truncation=truncation, tolerance=tolerance)
        for episode in episodes
    ]


def value_metrics(episodes: Sequence[Episode], discount: float) -> dict[str, float]:
    """``probe/value/*`` of episodes that the policy played, with the critic's estimates."""
    return _named("value", episodes, discount)


def planner_metrics(episodes: Sequence[Episode], discount: float) -> dict[str, float]:
    """``probe/planner/*`` of planned episodes, with the planner's estimates."""
    return _named("planner", episodes, discount)


def _named(kind: str, episodes: Sequence[Episode], discount: float) -> dict[str, float]:
    result = value_error(episodes, discount)
    if result["count"] == 0.0:
        return {}
    return {f"probe/{kind}/{name}": value for name, value in result.items()}
