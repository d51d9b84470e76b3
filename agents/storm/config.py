"""Hyperparameters of STORM; the published ones but for ``act_on``, ``act_align``, percentiles.

References:
    Zhang et al., "STORM: Efficient Stochastic Transformer based World Models for Reinforcement
    Learning", NeurIPS 2023, arXiv:2310.09615, and its code.
"""

from dataclasses import dataclass, field
from typing import Literal

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.agents.token_config import TokenModelConfig
from mbrl_flat.errors import UserError
from mbrl_flat.models.strided_conv import NormName
from mbrl_flat.models.transformer import TransformerConfig
from mbrl_flat.settings import setting


@dataclass(frozen=True, kw_only=True)
class STORMConfig(TokenModelConfig):
    """Hyperparameters beside those of ``TokenModelConfig``.

    Attributes:
        norm: Of the convolutions: ``batch`` (published) or ``layer``.
        act_on: What the policy sees of the current step: the ``frame``, or what the model had
            predicted of it (``prediction``, published).
        context: Tokens that an imagined rollout begins with.
        act_context: Tokens that the agent remembers as it acts.
        act_align: Which learned positions fewer tokens than ``act_context`` have as the agent acts:
            the last (``right``), or the first (``left``, published).
    """

    norm: NormName = "batch"
    act_on: Literal["frame", "prediction"] = "frame"
    context: int = setting(8, "[1, inf)")
    act_context: int = setting(16, "[1, inf)")
    act_align: Literal["right", "left"] = "right"
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(num_layers=2, left_context=None, relative=False)
    )
    imagination: ImaginationConfig = field(
        default_factory=lambda: ImaginationConfig(horizon=16, max_grad_norm=1000.0)
    )
    actor_critic: ActorCriticConfig = field(
        default_factory=lambda: ActorCriticConfig(
            discount=0.985, weighting="uniform", slow_critic="second_target"
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transformer.relative or self.transformer.left_context is not None:
            raise UserError(
                "STORM's transformer has learned positions and attends to all it is given; "
                "set transformer.relative=false and transformer.left_context=null."
            )

    @property
    def max_length(self) -> int:
        """Positions that are needed: a subsequence, a rollout with its context, or the memory."""
        sequence = self.imagination.sequence_length + 1
        return max(sequence, self.context + self.imagination.horizon, self.act_context)
