"""Settings of batches, rollouts and actions that the imagination agents share."""

from dataclasses import dataclass
from typing import Literal

from mbrl_flat.errors import UnknownNameError, UserError


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig:
    """How batches, rollouts and actions are made; the defaults are DreamerV3's.

    Attributes:
        batch_size: Subsequences in a batch.
        sequence_length: Transitions T of a subsequence; the loss covers its last T observations.
        horizon: Imagined steps H.
        max_grad_norm: Bound on the joint norm of the model's gradient; None leaves it to a base
            optimizer that clips by itself.
        eval_action: ``sample`` from the policy in evaluation, or take its ``mode``.
        start_continue: Whether a rollout's first weight is the ``predicted`` or the ``recorded``
            continuation.
        precision: ``float32``, or ``bfloat16`` for automatic mixed precision; weights, losses
            and the probes stay in float32.
    """

    batch_size: int = 16
    sequence_length: int = 64
    horizon: int = 15
    max_grad_norm: float | None = None
    eval_action: Literal["sample", "mode"] = "sample"
    start_continue: Literal["predicted", "recorded"] = "predicted"
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_length", "horizon"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name, allowed in (
            ("eval_action", ["sample", "mode"]),
            ("start_continue", ["predicted", "recorded"]),
            ("precision", ["float32", "bfloat16"]),
        ):
            if getattr(self, name) not in allowed:
                raise UnknownNameError(name, getattr(self, name), allowed)
