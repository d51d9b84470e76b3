r"""Error of an actor's value estimates against the returns that followed.

.. math::
    G_t = \sum_{s=t}^{T-1} \gamma^{s-t} r_s, \qquad
    \mathrm{bias} = \mathrm{mean}(\hat V_t - G_t), \qquad
    \mathrm{rmse} = \sqrt{\mathrm{mean}((\hat V_t - G_t)^2)}

============================  ===================================================================
``bias``                      positive for overestimation; ``bias_low`` and ``bias_high`` are its
                              95% interval
``rmse_normalised`` (NRMSE)   RMSE over the standard deviation of the returns; 1 is as good as
                              always predicting their mean
``rmse_relative``             RMSE over the mean absolute return: the error as a share of what is
                              predicted, also where returns hardly differ between states
``explained_variance``        ``1 - Var(G - V) / Var(G)``: 1 is perfect up to a constant, 0 no
                              better than a constant
``spearman``                  rank correlation of estimates and returns, average ranks for ties
============================  ===================================================================

Time limits. Estimates look beyond the end of a truncated episode, recorded returns do not.
``truncation=bootstrap`` therefore adds ``gamma^(T - t)`` of the actor's own last estimate, so that
an exact estimate has no error. To keep that share small, only steps are judged at which it weighs
at most ``tolerance``. The same steps are judged in all episodes, up to one common step: judging
late steps only where the task happened to end would select on the outcome. If the episodes are
too short for any step to qualify, all of them are cut, and bootstrapped, at the last step before
the shortest time limit, and all steps before it are judged.
``truncation=drop`` leaves the tail out; an exact estimate then has a bias of up to
``tolerance`` of its value.

A lost life that is recorded as a termination is one for the estimates that learn from the record:
returns are summed up to it.

Steps of one episode depend on each other, so the interval treats episodes as the samples: a
jackknife over episodes with the quantiles of Student's t.

Estimates and returns must belong to the same actor: the planner's in planned episodes, the
policy's in episodes that the policy played.

References:
    Quenouille, "Notes on Bias in Estimation", Biometrika 43, 1956 (jackknife); Efron & Tibshirani,
    "An Introduction to the Bootstrap", 1993, Chapter 11.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.analysis.stats import Interval, spearman, t_quantile
from mbrl_flat.data.episode import Episode
from mbrl_flat.errors import UnknownNameError, UserError

Truncation = Literal["bootstrap", "drop"]


def discounted_returns(
    reward: Tensor, *, discount: float, tail: float = 0.0, ends: Tensor | None = None
) -> Tensor:
    """Return ``G_t = r_t + gamma (1 - d_t) G_{t+1}`` ``[T]`` of rewards ``[T]``, in float64.

    Args:
        reward: Rewards ``r_0..r_{T-1}`` of one episode, ``[T]``.
        discount: Factor ``gamma`` per step, in [0, 1].
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
    truncation: Truncation = "bootstrap",
    num_steps: int | None = None,
    cut: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Pair the estimates of an episode with the returns that they are judged by.

    Args:
        episode: The record; without estimates it yields no pair.
        discount: Factor ``gamma`` per step, in [0, 1].
        truncation: ``bootstrap`` what lies beyond the end of a truncated episode with the last
            estimate, which is then not judged itself, or ``drop`` it.
        num_steps: Number of first steps that are judged; by default all.
        cut: Step at which the estimate stands for what follows, whether the episode is truncated or
            not; by default the last one of truncated episodes.

    Returns:
        Estimates and returns, each float64 ``[M]`` with M at most T.
    """
    value = episode.value.double()
    if value.numel() == 0:
        return value, value
    reward, ends, tail = episode.reward, episode.ends, 0.0
    if cut is None and truncation == "bootstrap" and not ends[-1]:
        cut = len(value) - 1
    if cut is not None and cut < len(value):
        value, reward, ends, tail = value[:cut], reward[:cut], ends[:cut], float(value[cut])
    returns = discounted_returns(reward, discount=discount, tail=tail, ends=ends)
    return value[:num_steps], returns[:num_steps]


def common_steps(
    episodes: Sequence[Episode],
    discount: float,
    *,
    truncation: Truncation = "bootstrap",
    tolerance: float = 0.05,
) -> int | None:
    """Number of first steps at which no time limit hides more than ``tolerance`` of the value.

    Args:
        episodes: Records of evaluation episodes with the critic's estimates.
        discount: Factor ``gamma`` per step, in [0, 1].
        truncation: With ``bootstrap`` the last step of a truncated episode stands for what follows.
        tolerance: Largest weight ``gamma^(T - t)`` of what lies beyond a time limit.

    Returns:
        The number, which may be 0; None if no episode was truncated, so that all steps count.
    """
    limits = [episode.length for episode in episodes if not episode.ends[-1]]
    if not limits:
        return None
    known = min(limits) - (truncation == "bootstrap")
    return sum(discount**left <= tolerance for left in range(1, known + 1))


def value_error(
    episodes: Sequence[Episode],
    discount: float,
    *,
    truncation: Truncation = "bootstrap",
    tolerance: float = 0.05,
) -> dict[str, float]:
    """Compare estimates and returns over the steps of all episodes that can be judged.

    Args:
        episodes: Records of evaluation episodes with the critic's estimates.
        discount: Factor ``gamma`` per step, in [0, 1].
        truncation: ``bootstrap`` or ``drop``; see the module.
        tolerance: Largest weight of what lies beyond a time limit, in (0, 1].

    Returns:
        ``bias`` with ``bias_low`` and ``bias_high``, ``rmse``, ``rmse_normalised``,
        ``rmse_relative``, ``explained_variance``, ``spearman``, ``count``, and ``bootstrapped``: 1
        if the tails of truncated episodes were estimated. Undefined ones are absent: without any
        pair all but ``count``, where all returns are equal NRMSE, explained variance and rank
        correlation, with fewer than two episodes the interval.

    Raises:
        UserError: If ``tolerance`` is not within (0, 1].
        UnknownNameError: If ``truncation`` is neither.
    """
    if truncation not in {"drop", "bootstrap"}:
        raise UnknownNameError("truncation", truncation, ["drop", "bootstrap"])
    if not 0.0 < tolerance <= 1.0:
        raise UserError(f"The probe's tolerance must lie within (0, 1], got {tolerance}.")
    judged = [episode for episode in episodes if episode.value.numel() > 0]
    steps = common_steps(judged, discount, truncation=truncation, tolerance=tolerance)
    cut = None
    if steps == 0:
        cut = steps = min(episode.length for episode in judged if not episode.ends[-1]) - 1
    pairs = [
        estimates_and_returns(episode, discount, truncation=truncation, num_steps=steps, cut=cut)
        for episode in judged
    ]
    if sum(len(value) for value, _ in pairs) == 0:
        return {"count": 0.0}
    value, returns = (torch.cat(part) for part in zip(*pairs, strict=True))
    error = value - returns
    rmse = float(error.square().mean().sqrt())
    result = {
        "bias": float(error.mean()),
        "rmse": rmse,
        "count": float(len(error)),
        "bootstrapped": float(steps is not None and (truncation == "bootstrap" or cut is not None)),
    }
    low, _, high = bias_interval([v - g for v, g in pairs])
    if np.isfinite(low):
        result |= {"bias_low": low, "bias_high": high}
    return result | _relative(value, returns, rmse)


def _relative(value: Tensor, returns: Tensor, rmse: float) -> dict[str, float]:
    """Errors ``[M]`` relative to the size and to the spread of the returns, where there is any."""
    result: dict[str, float] = {}
    scale = float(returns.abs().mean())
    if scale > 0.0:
        result["rmse_relative"] = rmse / scale
    spread = float(returns.std(correction=0))
    # Rounding alone gives equal returns a spread of a few units in their last place.
    if spread > 1e-12 * float(returns.abs().max()):
        error = value - returns
        result["rmse_normalised"] = rmse / spread
        result["explained_variance"] = 1.0 - float(error.var(correction=0)) / spread**2
        if float(value.std(correction=0)) > 0.0:
            result["spearman"] = spearman(value.numpy(), returns.numpy())
    return result


def bias_interval(errors: Sequence[Tensor], *, confidence: float = 0.95) -> Interval:
    """Interval of the mean error over all steps, with episodes as the independent samples.

    Args:
        errors: For each episode the errors of its steps ``[M]``; empty ones do not count.
        confidence: Coverage that is aimed at.

    Returns:
        The interval: the ratio ``sum of errors / number of steps`` with its jackknife standard
        error over episodes and the quantiles of Student's t. Its bounds are NaN for fewer than two
        episodes, and so is the bias for none.

    Raises:
        ValueError: If ``confidence`` is not within (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie within (0, 1), got {confidence}.")
    sums = np.array([float(error.sum()) for error in errors if len(error) > 0])
    counts = np.array([float(len(error)) for error in errors if len(error) > 0])
    num = len(sums)
    if num == 0:
        return Interval(np.nan, np.nan, np.nan)
    bias = float(sums.sum() / counts.sum())
    if num < 2:
        return Interval(np.nan, bias, np.nan)
    without = (sums.sum() - sums) / (counts.sum() - counts)
    standard_error = math.sqrt((num - 1) / num * float(np.square(without - without.mean()).sum()))
    half = t_quantile(num - 1, confidence=confidence) * standard_error
    return Interval(bias - half, bias, bias + half)


def value_metrics(episodes: Sequence[Episode], discount: float) -> dict[str, float]:
    """``probe/value/*`` of episodes that the policy played, with the critic's estimates."""
    return named_value_error("value", episodes, discount)


def planner_metrics(episodes: Sequence[Episode], discount: float) -> dict[str, float]:
    """``probe/planner/*`` of planned episodes, with the planner's estimates."""
    return named_value_error("planner", episodes, discount)


def named_value_error(kind: str, episodes: Sequence[Episode], discount: float) -> dict[str, float]:
    """``probe/<kind>/*``; empty where there is no pair."""
    result = value_error(episodes, discount)
    if result["count"] == 0.0:
        return {}
    return {f"probe/{kind}/{name}": value for name, value in result.items()}
