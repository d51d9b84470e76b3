r"""Latents made of categoricals, their KL terms, and returns on imagined or replayed paths.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104; Sutton &
    Barto, "Reinforcement Learning: An Introduction", 2018, Section 12.1.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from mbrl_flat.distributed.batch_shard import draw_shard
from mbrl_flat.errors import UserError


def unimix(logits: Tensor, share: float) -> Tensor:
    """Mix each categorical with the uniform one.

    Args:
        logits: Unnormalised log-probabilities of the C classes, ``[..., C]``.
        share: Weight of the uniform distribution, in [0, 1).

    Returns:
        Log probabilities ``[..., C]`` of ``(1 - share) softmax(logits) + share / C``.
    """
    if share == 0.0:
        return torch.log_softmax(logits, -1)
    probs = torch.softmax(logits, -1)
    return torch.log((1.0 - share) * probs + share / logits.shape[-1])


def gumbel_noise(
    shape: tuple[int, ...], *, device: torch.device, generator: Generator | None = None
) -> Tensor:
    """Standard Gumbel draws ``[*shape]``, float32, from ``generator`` or the global stream."""

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, device=device).exponential_(generator=generator)

    exponential = draw_shard(draw, shape)
    # The smallest positive number instead of zero: the logarithm stays finite.
    return -exponential.clamp_min_(torch.finfo(torch.float32).tiny).log_()


def straight_through(log_probs: Tensor, noise: Tensor | None) -> Tensor:
    """Draw one-hot samples whose gradient is that of the probabilities.

    The draw is ``argmax(log_probs + noise)`` with Gumbel noise: fixed noise makes it a function of
    the weights, so that every evaluation of one optimizer step sees the same randomness.

    Args:
        log_probs: Normalised log-probabilities of the C classes, ``[..., C]``.
        noise: Gumbel draws ``[..., C]``; None takes the most likely class.

    Returns:
        One-hot ``[..., C]``.
    """
    score = log_probs.detach() if noise is None else log_probs.detach() + noise
    hard = torch.zeros_like(log_probs).scatter_(-1, score.argmax(-1, keepdim=True), 1.0)
    if not log_probs.requires_grad:
        return hard
    probs = log_probs.exp()
    return hard + (probs - probs.detach())


def draw_one_hot(log_probs: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Draw one-hot samples without gradient, from one uniform number for each categorical.

    Args:
        log_probs: Normalised log-probabilities of the C classes, ``[..., C]``.
        generator: Source of the draws; torch's global stream by default.

    Returns:
        One-hot ``[..., C]``.
    """
    cumulative = log_probs.detach().exp().cumsum(-1)
    shape, device = cumulative.shape[:-1], cumulative.device
    draw = partial(torch.rand, generator=generator, device=device, dtype=cumulative.dtype)
    uniform = draw_shard(draw, shape)
    # Scaled by the last sum, which rounding moves slightly off one.
    beyond = cumulative[..., :-1] <= (uniform * cumulative[..., -1])[..., None]
    index = beyond.sum(-1, keepdim=True)
    return torch.zeros_like(cumulative).scatter_(-1, index, 1.0)


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``sum_s KL(p_s || q_s)`` in nats over S categoricals ``[..., S, C]``, shape ``[...]``."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


class KLTerms(NamedTuple):
    """The two sides of a balanced KL, each ``[...]``, before free nats."""

    dynamics: Tensor
    """``KL(sg(posterior) || prior)``: moves the prior."""
    representation: Tensor
    """``KL(posterior || sg(prior))``: moves the posterior."""


def balanced_kl(posterior: Tensor, prior: Tensor) -> KLTerms:
    """Split the KL divergence by whom its gradient reaches.

    Args:
        posterior: Log probabilities ``[..., S, C]``.
        prior: Likewise.

    Returns:
        Both terms; their values are equal.
    """
    return KLTerms(
        dynamics=categorical_kl(posterior.detach(), prior),
        representation=categorical_kl(posterior, prior.detach()),
    )


def lambda_returns(
    reward: Tensor, discount: Tensor, value: Tensor, *, lambda_: float | Tensor
) -> Tensor:
    r"""Compute TD(lambda) targets by backward recursion.

    .. math::
        G_t = r_t + \gamma_t \left[(1 - \lambda_t) v_{t+1} + \lambda_t G_{t+1}\right],
        \qquad G_T = v_T

    Args:
        reward: ``r_t`` on the step from t to t + 1, ``[N, T]``.
        discount: ``gamma_t`` on that step, continuation included, ``[N, T]``; truncation is not
            termination and keeps its bootstrap.
        value: ``v_t`` for t = 0..T, ``[N, T + 1]``.
        lambda_: Mixing weight in [0, 1], or one for each step ``[N, T]``: zero where the path
            breaks off at t + 1.

    Returns:
        ``G_t`` for t = 0..T-1, ``[N, T]``.

    Raises:
        UserError: If a scalar ``lambda_`` is outside [0, 1].
    """
    if isinstance(lambda_, float) and not 0.0 <= lambda_ <= 1.0:
        raise UserError(f"lambda_ must lie in [0, 1], got {lambda_}.")
    following = value[:, 1:]
    one_step = reward + discount * (1.0 - lambda_) * following
    carry = discount * lambda_
    running, returns = value[:, -1], []
    for t in range(reward.shape[1] - 1, -1, -1):
        running = one_step[:, t] + carry[:, t] * running
        returns.append(running)
    return torch.stack(returns[::-1], 1)
