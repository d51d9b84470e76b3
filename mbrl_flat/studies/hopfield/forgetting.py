r"""Intrinsic forgetting and the gain of replay, in a geometry where both can be worked out.

n unit patterns with pairwise inner product c and one unit outlier orthogonal to all of them are
stored; then every pattern is turned by the same rotation V. A stored pattern's fixed point f_k
is forgotten by

.. math::
    \Delta E_k = E(f_k | V \Xi) - E(f_k | \Xi)

and replaying pattern r, that is storing it beside the new ones, takes back

.. math::
    \Delta_{r \to k} = E(f_k | V \Xi) - E(f_k | V \Xi + \xi_r)
        = \tfrac{1}{\beta} \log\left(1 + p_{r|k} e^{\beta \Delta E_k}\right)

with :math:`p_{r|k}` the share of r in a retrieval from f_k among the old memories. Without any
drift that is :math:`\log(1 + p_{r|k}) / \beta`, the gain of storing a pattern twice; the corrected
gain is what goes beyond it.

References:
    Takeda, Oizumi, Karakida, arXiv:2605.27975: the geometry, forgetting and the gain of replay.

Deviations from the paper:
    The identity is derived here; the paper's own form (susceptibility times rise) is its first
    order. The paper's choice of rotations is not known to us: ``exp(eps (W - W^T) / 2)`` with
    standard normal W.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_flat.data.hopfield_energy import attention, energy, retrieve
from mbrl_flat.errors import UserError
from mbrl_flat.settings import check_number


def cluster_with_outlier(*, num_cluster: int, size: int, overlap: float) -> Tensor:
    """Patterns of the tractable geometry.

    Args:
        num_cluster: Patterns n of the cluster.
        size: Dimensions, at least n + 2.
        overlap: Inner product c of any two of the cluster, in [0, 1).

    Returns:
        ``[n + 1, size]``, float64, all of length one; the outlier comes last.

    Raises:
        UserError: If they don't fit, or the overlap is out of range.
    """
    if size < num_cluster + 2:
        raise UserError(
            f"{num_cluster} patterns and an outlier need at least {num_cluster + 2} dimensions, "
            f"got {size}."
        )
    check_number("overlap", overlap, "[0, 1)")
    patterns = torch.zeros(num_cluster + 1, size, dtype=torch.float64)
    patterns[:num_cluster, 0] = math.sqrt(overlap)
    rows = torch.arange(num_cluster)
    patterns[rows, rows + 1] = math.sqrt(1.0 - overlap)
    patterns[num_cluster, num_cluster + 1] = 1.0
    return patterns


def random_rotations(num: int, size: int, *, strength: float, generator: torch.Generator) -> Tensor:
    """Rotations ``exp(strength (W - W^T) / 2)`` with standard normal W, ``[num, size, size]``."""
    weights = torch.randn(num, size, size, generator=generator, dtype=torch.float64)
    return torch.matrix_exp(strength * 0.5 * (weights - weights.mT))


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What each of R rotations does to K memories.

    Attributes:
        rise: Intrinsic forgetting of each memory ``[R, K]``.
        gain: Gain of replay ``[R, K, K]``: of the first index's pattern on the second's memory.
        corrected: The same less what storing twice gains without drift ``[R, K, K]``.
    """

    rise: Tensor
    gain: Tensor
    corrected: Tensor


def forgetting(patterns: Tensor, rotations: Tensor, *, beta: float) -> Forgetting:
    """Measure forgetting and replay for many rotations at once, from the energies themselves.

    Args:
        patterns: ``[K, D]``.
        rotations: ``[R, D, D]``.
        beta: Inverse temperature, above 0; larger values make the nearest pattern count alone.

    Returns:
        The measurements.
    """
    points = retrieve(patterns, patterns, beta=beta)
    turned = patterns @ rotations.mT
    before = energy(points, patterns, beta=beta)
    after = energy(points, turned, beta=beta)
    # One more memory each: [R, K replayed, K + 1, D].
    count = len(patterns)
    stored = torch.cat(
        [
            turned.unsqueeze(1).expand(-1, count, -1, -1),
            patterns.view(1, count, 1, -1).expand(len(rotations), -1, -1, -1),
        ],
        2,
    )
    gain = after.unsqueeze(1) - energy(points, stored, beta=beta)
    share = attention(points, patterns, beta=beta).mT
    return Forgetting(rise=after - before, gain=gain, corrected=gain - torch.log1p(share) / beta)


def replay_gain(share: Tensor, rise: Tensor, *, beta: float) -> Tensor:
    """Gain of replay by the identity, ``log(1 + share exp(beta rise)) / beta``.

    Args:
        share: Share of the replayed memory in a retrieval of the other.
        rise: The other's intrinsic forgetting, of a shape that broadcasts.
        beta: Inverse temperature, above 0; larger values make the nearest pattern count alone.

    Returns:
        The gain, in units of energy.
    """
    return torch.log1p(share * torch.exp(beta * rise)) / beta
