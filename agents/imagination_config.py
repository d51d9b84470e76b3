"""Settings of batches, rollouts and actions that the imagination agents share."""

from dataclasses import dataclass
from typing import Literal

from mbrl_flat.settings import CheckedSettings, setting


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig(CheckedSettings):
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

    batch_size: int = setting(16, "[1, inf)")
    sequence_length: int = setting(64, "[1, inf)")
    horizon: int = setting(15, "[1, inf)")
    max_grad_norm: float | None = setting(None, "(0, inf]")
    eval_action: Literal["sample", "mode"] = "sample"
    start_continue: Literal["predicted", "recorded"] = "predicted"
    precision: Literal["float32", "bfloat16"] = "float32"
