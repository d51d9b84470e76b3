r"""Energy and retrieval of a modern Hopfield network, and the energy of a smoothed data set.

.. math::
    E(x | \Xi) &= \tfrac{1}{2} |x|^2
        - \tfrac{1}{\beta} \log \sum_\mu e^{\beta x \cdot \xi_\mu}, \\
    x &\leftarrow \sum_\mu p_\mu \xi_\mu, \quad
        p = \operatorname{softmax}(\beta x \cdot \xi_\mu)

A retrieval step is a gradient step of length one. For memories of equal length and
:math:`s^2 = 1 / \beta` the energy is, up to a constant, :math:`-s^2` times the log-density of
the data smoothed by a Gaussian of width s, the density that a diffusion model is trained on.

References:
    Ramsauer et al., "Hopfield Networks is All You Need", ICLR 2021, arXiv:2008.02217, Eq. 1-3.
    Takeda, Oizumi, Karakida, "Continual Learning in Modern Hopfield Networks with an Application
    to Diffusion Models", arXiv:2605.27975.
"""

import math

import torch
from torch import Tensor

from mbrl_flat.errors import UserError
from mbrl_flat.settings import check_number

_SETTLED = 1e-12
"""A fixed point is reached when no entry moves by more."""


def energy(x: Tensor, memories: Tensor, *, beta: float) -> Tensor:
    """Energy of states under stored memories.

    Args:
        x: States ``[..., N, D]``.
        memories: ``[..., M, D]``.
        beta: Inverse temperature, above 0; larger values make the nearest pattern count alone.

    Returns:
        ``[..., N]``.

    Raises:
        UserError: If ``beta`` is not positive or there is no memory.
    """
    scores = _scores(x, memories, beta)
    return 0.5 * x.square().sum(-1) - scores.logsumexp(-1) / beta


def attention(x: Tensor, memories: Tensor, *, beta: float) -> Tensor:
    """Share of each memory in a retrieval, ``[..., N, M]``; arguments as for ``energy``."""
    return _scores(x, memories, beta).softmax(-1)


def retrieve(
    x: Tensor,
    memories: Tensor,
    *,
    beta: float,
    max_steps: int = 10_000,
) -> Tensor:
    """Follow the update to its fixed points.

    Args:
        x: Where to start ``[..., N, D]``.
        memories: ``[..., M, D]``.
        beta: Inverse temperature, above 0; larger values make the nearest pattern count alone.
        max_steps: Updates after which an iteration that has not converged is ended.

    Returns:
        The fixed points ``[..., N, D]``.

    Raises:
        UserError: If they are not reached within ``max_steps``.
    """
    for _ in range(max_steps):
        moved = attention(x, memories, beta=beta) @ memories
        if (moved - x).abs().max() <= _SETTLED:
            return moved
        x = moved
    raise UserError(
        f"Retrieval did not settle to {_SETTLED} within {max_steps} updates; allow more."
    )


def smoothed_energy(
    x: Tensor, data: Tensor, *, scale: float, leave_out: Tensor | None = None
) -> Tensor:
    r"""``-s^2`` times the log-density of data smoothed by a Gaussian, without its normaliser.

    .. math::
        E_s(x) = -s^2 \log \frac{1}{M} \sum_\mu e^{-|x - \xi_\mu|^2 / (2 s^2)}

    Args:
        x: Points ``[N, D]``.
        data: Samples ``[M, D]``.
        scale: Width s of the Gaussian.
        leave_out: For each point the index of a sample that is not counted ``[N]``, so that a
            stored sample is judged by the others alone.

    Returns:
        ``[N]``.

    Raises:
        UserError: If ``scale`` is not positive or no sample is left to count.
    """
    check_number("The scale of the smoothed energy", scale, "(0, inf)")
    count = data.shape[0] - (0 if leave_out is None else 1)
    if count < 1:
        raise UserError("The smoothed energy needs at least one sample besides the one left out.")
    # From the definition, as the expanded square loses all digits of a small distance.
    scores = -torch.cdist(x, data, compute_mode="donot_use_mm_for_euclid_dist").square()
    scores = scores / (2.0 * scale**2)
    if leave_out is not None:
        scores = scores.scatter(1, leave_out.unsqueeze(1), -math.inf)
    return -(scale**2) * (scores.logsumexp(-1) - math.log(count))


def neighbour_width(data: Tensor) -> float:
    """Width for the smoothed energy: the median distance to the fifth nearest other sample.

    Args:
        data: Samples ``[M, D]``, at least two; of fewer than six the farthest counts.

    Returns:
        The distance; 0 where most samples have that many equal ones.
    """
    distance = torch.cdist(data, data, compute_mode="donot_use_mm_for_euclid_dist")
    rank = min(5, len(data) - 1) + 1
    return float(distance.kthvalue(rank, 1).values.median())


def _scores(x: Tensor, memories: Tensor, beta: float) -> Tensor:
    check_number("beta", beta, "(0, inf)")
    if memories.shape[-2] == 0:
        raise UserError("A Hopfield network needs at least one memory.")
    return beta * (x @ memories.mT)
