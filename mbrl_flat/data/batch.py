"""The batch: what replay gives and losses take.

Time runs as in Sutton & Barto: ``action[:, t]`` is taken at ``obs[:, t]`` and is followed by
``reward[:, t]``, ``terminated[:, t]`` and ``obs[:, t + 1]``. So a subsequence of T transitions
holds T + 1 observations and T of everything else.

An episode ends in one of two ways. *Terminated*: the task is over and the value beyond is zero.
*Truncated*: time ran out and a target keeps its bootstrap. A subsequence crosses neither, unless it
was sampled across episodes: then ``is_first`` marks the observations that begin an episode, and the
transition before such an observation did not happen (its action and reward are zero).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_flat.runtime.device import transfer


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B subsequences of T transitions, batch-first.

    Attributes:
        obs: Each entry ``[B, T + 1, ...]``; images stay uint8 until they are on the device.
        action: Actions as the agent sees them, float ``[B, T, A]``.
        reward: Sum over the repeated frames, float ``[B, T]``.
        terminated: 1 where the task ended with this transition, float ``[B, T]``.
        is_first: Where an episode begins, bool ``[B, T + 1]``; None if it was not asked for.
    """

    obs: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    terminated: Tensor
    is_first: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device; to CUDA the copy goes through pinned memory and does not block."""
        return self._each(lambda value: transfer(value, device))

    def first(self, rows: int) -> "Batch":
        """The first ``rows`` subsequences."""
        return self._each(lambda value: value[:rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            obs={name: change(value) for name, value in self.obs.items()},
            action=change(self.action),
            reward=change(self.reward),
            terminated=change(self.terminated),
            is_first=None if self.is_first is None else change(self.is_first),
        )


def first_part(
    batch: Batch, targets: dict[str, Tensor], fraction: float
) -> tuple[Batch, dict[str, Tensor]]:
    """The first part of a batch, at least one subsequence, and of what was computed for it.

    Args:
        batch: A batch of B subsequences; it is not changed.
        targets: Tensors ``[B n, ...]`` with any whole n.
        fraction: How much of the batch, in (0, 1].

    Returns:
        Both, as views.
    """
    if fraction == 1.0:
        return batch, targets
    num = len(batch.reward)
    rows = max(1, round(fraction * num))
    return batch.first(rows), {k: v[: len(v) * rows // num] for k, v in targets.items()}
