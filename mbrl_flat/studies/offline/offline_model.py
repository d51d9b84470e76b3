"""What the study asks of a world model; structural, nothing has to inherit."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from mbrl_flat.interfaces import Targets
from mbrl_flat.studies.offline.transitions import Subsequences


class Predictions(NamedTuple):
    """What a model expects from its last recorded observation ``o_t`` on, K steps ahead.

    Only the recorded actions reach it after that.
    """

    obs: Tensor
    """``[B, K + 1, n]``: expected ``o_t .. o_{t+K}``; the first is what it makes of ``o_t``."""
    reward: Tensor
    """``[B, K]``: expected ``r_t .. r_{t+K-1}``."""
    value: Tensor
    """``[B, K + 1]``: expected returns from ``(o_t, a_t)`` to ``(o_{t+K}, a_{t+K})`` on."""


class OfflineModel(Protocol):
    """A world model with the loss that its paper trains it by, but returns as value targets."""

    context: int
    """Recorded observations that it looks at before it predicts."""
    sequence_length: int
    """Transitions of the subsequences that it learns from."""
    batch_size: int
    """How many of them."""
    lr_scales: Mapping[str, float]
    """Learning rates of modules relative to the rest."""
    max_grad_norm: float
    """Bound on the joint norm of its gradient."""

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by name; no parameter twice."""
        ...

    def train(self, mode: bool = True) -> object:
        """Switch dropout on or off, as ``nn.Module.train`` does."""
        ...

    def targets(self, subsequences: Subsequences) -> Targets:
        """What the loss regresses on: computed once, without gradient."""
        ...

    def loss(self, subsequences: Subsequences, targets: Targets) -> Tensor:
        """Scalar loss; a function of the weights and, in training mode, of the dropout."""
        ...

    def calibrate(self, subsequences: Subsequences) -> None:
        """Fit on training subsequences whatever reads observations out of latents."""
        ...

    def predict(self, subsequences: Subsequences, horizon: int) -> Predictions:
        """Predict ``horizon`` steps from the last of the first ``context`` observations.

        Args:
            subsequences: ``context + horizon`` transitions each; actions alone are read of the last
                ``horizon`` of them.
            horizon: Number of steps K to predict, at least 1.

        Returns:
            The predictions, without gradient.
        """
        ...
