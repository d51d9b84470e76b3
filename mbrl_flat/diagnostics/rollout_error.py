r"""Open-loop errors of a world model after k steps.

From a latent that the observation gave, ``z_t = enc(o_t)``, the model is unrolled with the recorded
actions and no further observation, ``zhat_{t+k}``. Over B subsequences, for every k,

.. math::
    \mathrm{latent\_error}_k = \frac{E|\hat z_{t+k} - enc(o_{t+k})|^2}{E|enc(o) - E\,enc(o)|^2},
    \mathrm{copy\_baseline}_k = \frac{E|z_t - enc(o_{t+k})|^2}{E|enc(o) - E\,enc(o)|^2}

    \mathrm{reward\_error}_k = E|\hat r_{t+k-1} - r_{t+k-1}|, \qquad
    \mathrm{value\_error}_k = E|V(\hat z_{t+k}) - V(enc(o_{t+k}))|

A latent error of 1 is that of always predicting the mean; one above ``copy_baseline`` is worse than
claiming that nothing moves. Of latents that hold memory as well, only what heads read counts
(``mbrl_flat.interfaces.ShowsFeatures``). An encoder that maps everything to one point would make
latents easy to predict, so they are also read out: a linear map from ``enc(o)`` to the observation,
fitted on other subsequences, is applied to ``zhat``, and ``state_error_<k>`` is its squared error
as a share of the observation's variance. ``state_error_0`` is what the read-out itself misses.

The features of a frozen random encoder ``phi(o)`` take the observation's place for images, and
weigh the entries of vectors equally: ``reference_error_<k>`` is the same error there,
``reference_copy_<k>`` the share ``E|phi(o_t) - phi(o_{t+k})|^2`` of claiming that nothing moves.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.diagnostics.reference_encoder import ReferenceEncoder
from mbrl_flat.interfaces import Inspectable, SeveralTasks, ShowsFeatures
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.specs import TASK


class Readout(NamedTuple):
    """A linear map from latents to observations."""

    weight: Tensor
    """``[D, S]``."""
    latent_mean: Tensor
    """``[D]``."""
    state_mean: Tensor
    """``[S]``."""

    def __call__(self, latent: Tensor) -> Tensor:
        """Map ``[..., D]`` to ``[..., S]``, in float64."""
        return (latent.double() - self.latent_mean) @ self.weight + self.state_mean


def fit_readout(latent: Tensor, state: Tensor, *, ridge: float = 1e-6) -> Readout:
    """Regress states ``[N, S]`` on latents ``[N, D]``.

    Args:
        latent: Latents, ``[N, D]``.
        state: Physical states to be read from them, ``[N, S]``.
        ridge: Penalty on the squared weights, relative to the mean variance of a latent entry.

    Returns:
        The least-squares map, in float64.
    """
    x, y = latent.double(), state.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.mT @ x
    penalty = ridge * gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    gram.diagonal().add_(penalty)
    return Readout(torch.linalg.solve(gram, x.mT @ y), x_mean, y_mean)


def fit_tuned_readout(
    latent: Tensor, target: Tensor, *, ridges: Sequence[float] = (1e-6, 1e-4, 1e-2, 1.0)
) -> Readout:
    """Regress targets ``[B, T, F]`` on latents ``[B, T, D]`` where D may be above B T.

    Args:
        latent: Latents, ``[N, D]``.
        target: What is to be read from them, ``[N, S]``.
        ridges: Penalties; the one that does best on the last quarter of subsequences is taken.

    Returns:
        The map fitted on all subsequences with that penalty.
    """
    known = latent.shape[0] - max(1, latent.shape[0] // 4)

    def missed(ridge: float) -> float:
        x, y = latent[:known].flatten(0, 1), target[:known].flatten(0, 1)
        guess = fit_readout(x, y, ridge=ridge)(latent[known:])
        return float((guess - target[known:]).square().mean())

    best = min(ridges, key=missed)
    return fit_readout(latent.flatten(0, 1), target.flatten(0, 1), ridge=best)


class Reference(NamedTuple):
    """A space that no agent's training can move, and the way there from an agent's latents."""

    encoder: ReferenceEncoder
    readout: Readout


def read_by_heads(agent: Inspectable, latent: Tensor) -> Tensor:
    """That part of latents ``[..., D]`` which predictions are made from ``[..., F]``."""
    return agent.features(latent) if isinstance(agent, ShowsFeatures) else latent


def vector_observations(batch: Batch) -> Tensor | None:
    """All entries but the index of the task joined, ``[B, T + 1, S]``; None without vectors."""
    entries = [entry for name, entry in batch.obs.items() if name != TASK]
    if any(entry.ndim != 3 for entry in entries):
        return None
    return torch.cat([entry.double() for entry in entries], -1)


def open_loop(agent: Inspectable, start: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unroll the model with recorded actions.

    Args:
        agent: The trained agent whose world model predicts; it is not changed.
        start: Latents ``[B, D]``.
        action: ``[B, K, A]``.

    Returns:
        Latents after each step ``[B, K, D]``, rewards and continuation probabilities ``[B, K]``.
    """
    latents, rewards, conts = [], [], []
    latent = start
    for step in action.unbind(1):
        check_interrupt()
        latent, reward, cont = agent.predict(latent, step)
        latents.append(latent)
        rewards.append(reward)
        conts.append(cont)
    return torch.stack(latents, 1), torch.stack(rewards, 1), torch.stack(conts, 1)


@torch.no_grad()
def rollout_errors(
    agent: Inspectable,
    batch: Batch,
    *,
    readout: Readout | None = None,
    reference: Reference | None = None,
) -> dict[str, float]:
    """Measure open-loop errors on subsequences ``[B, K]`` for k = 1 to K.

    Args:
        agent: The trained agent whose world model predicts; it is not changed.
        batch: Recorded subsequences, actions included, that the model is run along.
        readout: Map from what heads read to observations, for ``state_error_<k>``.
        reference: A frozen encoder and the map to it, for ``reference_error_<k>``.

    Returns:
        ``latent_error_<k>``, ``copy_baseline_<k>``, ``reward_error_<k>``, ``value_error_<k>``,
        ``termination_error_<k>`` (mean absolute error of the probability) and, with a read-out,
        ``state_error_<k>``, with a reference ``reference_error_<k>`` and ``reference_copy_<k>``.
        Shares of a variance that is zero are absent.
    """
    actual = agent.posterior(batch)
    batch = batch.to(actual.device)
    start, later = actual[:, 0], actual[:, 1:]
    latent, reward, cont = open_loop(agent, start, batch.action)
    values = [
        (agent.value(latent[:, k]) - agent.value(later[:, k])).abs().double().mean()
        for k in range(later.shape[1])
    ]
    curves = {
        "reward_error": (reward - batch.reward).abs().double().mean(0),
        "value_error": torch.stack(values),
        "termination_error": (1.0 - cont - batch.terminated).abs().double().mean(0),
    }
    # Without memory: keys of recorded steps vary a lot, and are the same in truth and prediction.
    seen, guessed = read_by_heads(agent, actual), read_by_heads(agent, latent)
    learned = agent.latent_size if isinstance(agent, SeveralTasks) else seen.shape[-1]
    variance = _spread(seen[..., :learned])
    if variance > 0.0:
        curves["latent_error"] = _squared(guessed - seen[:, 1:]) / variance
        curves["copy_baseline"] = _squared(seen[:, :1] - seen[:, 1:]) / variance
    row = {f"{name}_{k + 1}": float(v) for name, curve in curves.items() for k, v in _each(curve)}
    read = torch.cat([seen[:, :1], guessed], 1)
    state = vector_observations(batch)
    if readout is not None and state is not None and _spread(state) > 0.0:
        row |= _shares("state_error", readout(read) - state, state)
    if reference is not None:
        truth = reference.encoder(batch.obs)
        if _spread(truth) > 0.0:
            row |= _shares("reference_error", reference.readout(read) - truth, truth)
            row |= _shares("reference_copy", truth[:, 1:] - truth[:, :1], truth, first=1)
    return row


def compounding(row: dict[str, float]) -> dict[str, float]:
    """How errors grow: ``growth``, the slope of ``log e_k`` in k, and ``trusted_horizon``.

    Args:
        row: What ``rollout_errors`` gave.

    Returns:
        The two; the horizon is the last k up to which every error is below the copy baseline.
    """
    steps = [k for k in range(1, len(row) + 1) if f"latent_error_{k}" in row]
    errors = torch.tensor([row[f"latent_error_{k}"] for k in steps], dtype=torch.float64)
    if not steps or bool((errors <= 0.0).any()):
        return {}
    trusted = 0
    for k in steps:
        if row[f"latent_error_{k}"] >= row[f"copy_baseline_{k}"]:
            break
        trusted = k
    out = {"trusted_horizon": float(trusted)}
    if len(steps) > 1:
        k = torch.tensor(steps, dtype=torch.float64)
        k = k - k.mean()
        out["growth"] = float((k @ errors.log()) / (k @ k))
    return out


def _squared(difference: Tensor) -> Tensor:
    """Mean squared length ``[K]`` of differences ``[B, K, D]``."""
    return difference.double().square().sum(-1).mean(0)


def _shares(name: str, difference: Tensor, truth: Tensor, *, first: int = 0) -> dict[str, float]:
    """Errors ``[B, T, S]`` as shares of the variance of ``truth``, for k = ``first`` and on."""
    errors = (_squared(difference) / _spread(truth)).tolist()
    return {f"{name}_{k}": error for k, error in enumerate(errors, first)}


def _spread(points: Tensor) -> float:
    """Mean squared distance from their mean of points ``[B, T, D]``."""
    flat = points.double().flatten(0, 1)
    return float((flat - flat.mean(0)).square().sum(-1).mean())


def _each(curve: Tensor) -> list[tuple[int, float]]:
    return list(enumerate(curve.tolist()))
