r"""Open-loop errors that can be compared between models and runs.

All are shares of a variance of the recorded data, so that 1 is the error of always predicting the
mean; with entries o, k steps after the last observation that the model saw,

.. math::
    \mathrm{state}_k = \frac{E |\hat o_{t+k} - o_{t+k}|^2}{E |o - E o|^2}, \qquad
    \mathrm{copy}_k = \frac{E |o_t - o_{t+k}|^2}{E |o - E o|^2}, \qquad
    \mathrm{value}_k = \sqrt{\frac{E (\hat Q_{t+k} - G_{t+k})^2}{\mathrm{Var}\, G}}

Latents that a model learns to predict from themselves can shrink, which would make their own error
small for nothing; observations and returns cannot.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mbrl_flat.analysis.stats import spearman
from mbrl_flat.studies.offline.offline_model import OfflineModel
from mbrl_flat.studies.offline.transitions import Subsequences


@torch.no_grad()
def open_loop_errors(
    model: OfflineModel, subsequences: Subsequences, horizon: int
) -> dict[str, list[float]]:
    """Measure a model on recorded subsequences.

    Args:
        model: In evaluation mode, calibrated.
        subsequences: ``context + horizon`` transitions each.
        horizon: Longest rollout K.

    Returns:
        ``state``, ``copy`` and ``value`` for k = 0..K, ``reward`` for k = 1..K, and ``bias``, the
        mean error of the value in deviations of the return, for k = 0..K.
    """
    now = model.context - 1
    ahead = model.predict(subsequences, horizon)
    actual = subsequences.obs[:, now : now + horizon + 1].double()
    reward = subsequences.batch.reward[:, now : now + horizon].double()
    returns = subsequences.returns[:, now : now + horizon + 1].double()
    spread = (actual - actual.mean((0, 1))).square().mean()
    miss = ahead.value.double() - returns
    return {
        "state": _listed((ahead.obs.double() - actual).square().mean((0, 2)) / spread),
        "copy": _listed((actual[:, :1] - actual).square().mean((0, 2)) / spread),
        "reward": _listed((ahead.reward.double() - reward).square().mean(0) / _variance(reward)),
        "value": _listed((miss.square().mean(0) / _variance(returns)).sqrt()),
        "bias": _listed(miss.mean(0) / _variance(returns).sqrt()),
    }


@torch.no_grad()
def value_agreement(model: OfflineModel, subsequences: Subsequences) -> dict[str, float]:
    """Compare values at recorded states with the returns that followed.

    Args:
        model: In evaluation mode.
        subsequences: At least ``context + 1`` transitions each.

    Returns:
        ``value_relative_rmse``, the RMSE over the mean absolute return;
        ``value_explained_variance``, ``1 - Var(G - Q) / Var(G)``; ``value_rank_correlation``.
    """
    now = model.context - 1
    value = model.predict(subsequences, 1).value[:, 0].double()
    returns = subsequences.returns[:, now].double()
    miss = returns - value
    return {
        "value_relative_rmse": float(miss.square().mean().sqrt() / returns.abs().mean()),
        "value_explained_variance": float(1.0 - _variance(miss) / _variance(returns)),
        "value_rank_correlation": spearman(value.numpy(), returns.numpy()),
    }


def summary(curves: dict[str, list[float]]) -> dict[str, float]:
    """Numbers that claims are made of.

    Args:
        curves: What ``open_loop_errors`` gave.

    Returns:
        Means over k = 1..K, the ends of the curves, ``compounding``, the state's error after K
        steps over that after one, and ``trusted``, the largest k up to which the model beats the
        copy of the last observation at every step. ``score`` is the mean of the shares of variance
        that state, reward and value miss.
    """
    state, copy, value = (curves[name][1:] for name in ("state", "copy", "value"))
    reward = curves["reward"]
    trusted = next((k for k, (e, c) in enumerate(zip(state, copy, strict=True)) if e >= c), None)
    return {
        "score": _mean([_mean(state), _mean(reward), _mean([v**2 for v in value])]),
        "state_error": _mean(state),
        "copy_error": _mean(copy),
        "state_error_0": curves["state"][0],
        "state_error_1": state[0],
        "state_error_last": state[-1],
        "compounding": state[-1] / state[0] if state[0] > 0.0 else math.nan,
        "trusted": float(len(state) if trusted is None else trusted),
        "reward_error": _mean(reward),
        "value_error_0": curves["value"][0],
        "value_error": _mean(value),
        "value_bias_0": curves["bias"][0],
    }


def _variance(x: Tensor) -> Tensor:
    return (x - x.mean()).square().mean().clamp_min(torch.finfo(torch.float64).tiny)


def _listed(curve: Tensor) -> list[float]:
    return [float(value) for value in curve]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
