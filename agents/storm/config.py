"""Hyperparameters of STORM; defaults are the published ones, but for the two named below.

References:
    Zhang et al., "STORM: Efficient Stochastic Transformer based World Models for Reinforcement
    Learning", NeurIPS 2023, arXiv:2310.09615, and its code.
"""

from dataclasses import dataclass, field
from typing import Literal

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.models.strided_conv import NormName
from mbrl_flat.models.transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class STORMConfig:
    """Hyperparameters, all independent of the task and of the world model's optimizer.

    Attributes:
        conv_width: Channels of the first convolution; they double at each stage.
        norm: Of the convolutions: ``batch`` (published) or ``layer``.
        act_on: What the policy sees of the current step: the ``frame``, or what the model had
            predicted of it (``prediction``, published).
        hidden: Features of the two layers of actor and critic.
        latent_groups: Categoricals of a latent.
        latent_classes: Classes of each.
        mix: Share of the uniform distribution in posterior and prior.
        num_bins: Bins of the two-hot reward and value.
        bin_limit: Bins span [-limit, limit] in symlog space.
        free_nats: Each KL term, averaged over the batch, counts at least this much.
        image_coef: Weight of the image error, a sum over pixels. The published 1 goes with 64x64
            pixels; where an object is a single pixel, its error must outweigh the nats that its
            place costs.
        dynamics_coef: Weight of the KL that moves the prior.
        representation_coef: Weight of the KL that moves the posterior.
        context: Tokens that an imagined rollout begins with.
        act_context: Tokens that the agent remembers as it acts.
        behaviour_lr: Learning rate of actor and critic.
        behaviour_eps: Epsilon of their Adam.
        behaviour_grad_clip: Bound on the joint norm of their gradient.
        transformer: Shape of the transformer.
        imagination: Batches and rollouts.
        actor_critic: Returns and losses of actor and critic.
    """

    conv_width: int = 32
    norm: NormName = "batch"
    act_on: Literal["frame", "prediction"] = "frame"
    hidden: int = 512
    latent_groups: int = 32
    latent_classes: int = 32
    mix: float = 0.01
    num_bins: int = 255
    bin_limit: float = 20.0
    free_nats: float = 1.0
    image_coef: float = 1.0
    dynamics_coef: float = 0.5
    representation_coef: float = 0.1
    context: int = 8
    act_context: int = 16
    behaviour_lr: float = 3e-5
    behaviour_eps: float = 1e-5
    behaviour_grad_clip: float = 100.0
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
        for name in ("conv_width", "hidden", "latent_groups", "context", "act_context"):
            if getattr(self, name) < 1:
                raise UserError(f"agent.config.{name} must be at least 1: {getattr(self, name)}.")
        if not self.image_coef > 0.0:
            raise UserError(f"agent.config.image_coef must be positive, got {self.image_coef}.")
        if self.latent_classes < 2:
            raise UserError(f"latent_classes must be at least 2, got {self.latent_classes}.")
        for name, allowed in (("norm", ["batch", "layer"]), ("act_on", ["frame", "prediction"])):
            if getattr(self, name) not in allowed:
                raise UnknownNameError(name, getattr(self, name), allowed, where="agent=storm")
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
