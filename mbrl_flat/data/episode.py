"""One whole recorded episode, as evaluation makes it and the probes read it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Episode:
    """T transitions and the T + 1 observations around them, on the CPU.

    Attributes:
        obs: Each entry ``[T + 1, ...]``; the last one is what the final action led to.
        action: ``[T, A]`` as the agent sees actions.
        reward: ``[T]``, summed over repeated frames.
        terminated: Whether the task ended; if not, time ran out (truncation).
        value: The actor's own estimate of the discounted return from each step on, ``[T]``;
            empty where the actor gives none.
        success: What the environment said of the episode, if it says anything.
        life_lost: Steps that a replay records as terminations though the episode may continue, bool
            ``[T]``; empty where nobody looked.
    """

    obs: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    terminated: bool
    value: Tensor = field(default_factory=Tensor)
    success: float | None = None
    life_lost: Tensor = field(default_factory=Tensor)

    @property
    def length(self) -> int:
        """Number of agent steps."""
        return self.reward.shape[0]

    @property
    def ends(self) -> Tensor:
        """Steps beyond which no value looks, bool ``[T]``: what is recorded as a termination."""
        ends = torch.zeros(self.length, dtype=torch.bool)
        if self.life_lost.numel() > 0:
            ends |= self.life_lost
        ends[-1] |= self.terminated
        return ends

    @property
    def undiscounted_return(self) -> float:
        """Sum of all rewards."""
        return float(self.reward.double().sum())
