"""What a state of STORM remembers: the last few tokens of each environment."""

from typing import NamedTuple

import torch
from torch import Tensor

from mbrl_flat.agents.imagination import ModelState


class Tokens(NamedTuple):
    """The last tokens of N environments, right-aligned in windows of W."""

    latent: Tensor
    """``[N, W, S C]``."""
    action: Tensor
    """``[N, W, A]``."""
    valid: Tensor
    """Which of them belong to the current episode, bool ``[N, W]``."""

    @classmethod
    def of(cls, state: ModelState) -> "Tokens":
        """Read them from a state."""
        return cls(state["past_latent"], state["past_action"], state["valid"])

    def to_state(self) -> ModelState:
        """Name them as a state does."""
        return {"past_latent": self.latent, "past_action": self.action, "valid": self.valid}

    def append(self, latent: Tensor, action: Tensor) -> "Tokens":
        """Slide the windows by one token, ``[N, S C]`` and ``[N, A]``."""
        return Tokens(
            torch.cat([self.latent[:, 1:], latent[:, None]], 1),
            torch.cat([self.action[:, 1:], action[:, None]], 1),
            torch.cat([self.valid[:, 1:], torch.ones_like(self.valid[:, :1])], 1),
        )

    def left_aligned(self) -> tuple["Tokens", Tensor]:
        """The same tokens from the left, and the place of the last valid one ``[N]``."""
        width, count = self.valid.shape[1], self.valid.sum(1)
        place = torch.arange(width, device=count.device)
        index = (place + (width - count)[:, None]) % width
        rows = torch.arange(len(count), device=count.device)[:, None]
        moved = Tokens(*(entry[rows, index] for entry in self))
        return moved, count - 1

    def mask(self) -> Tensor:
        """Who attends to whom ``[N, W, W]``; what is not valid, to itself alone."""
        width = self.valid.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.valid.device).tril()
        return (causal & self.valid[:, None]) | torch.eye(width, device=causal.device).bool()
