"""Hyperparameters of TWISTER; defaults are the published ones, size S.

References:
    Burchi & Timofte, "Learning Transformer-based World Models with Contrastive Predictive
    Coding", ICLR 2025, arXiv:2503.04416, and its code.
"""

from dataclasses import dataclass, field

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.errors import UserError
from mbrl_flat.models.transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class TWISTERConfig:
    """Hyperparameters, all independent of the task and of the world model's optimizer.

    Attributes:
        conv_width: Channels of the first convolution; they double at each stage.
        hidden: Features of the layers of every head, of actor and critic.
        num_layers: Layers of every head, of actor and critic.
        latent_groups: Categoricals of a latent.
        latent_classes: Classes of each.
        mix: Share of the uniform distribution in posterior, prior and policy.
        num_bins: Bins of the two-hot reward and value.
        bin_limit: Bins span [-limit, limit] in symlog space.
        free_nats: Each KL term of each step counts at least this much.
        image_coef: Weight of the image error, a sum over pixels. The published 1 goes with 64x64
            pixels; where an object is a single pixel, its error must outweigh the nats that its
            place costs.
        dynamics_coef: Weight of the KL that moves the prior.
        representation_coef: Weight of the KL that moves the posterior.
        contrastive_coef: Weight of the contrastive loss; 0 leaves it out, and its cost.
        contrastive_steps: Horizons K.
        contrastive_decay: Base of the horizons' weights.
        min_crop_area: Smallest area of a crop.
        behaviour_lr: Learning rate of actor and critic.
        behaviour_eps: Epsilon of their Adam.
        behaviour_grad_clip: Bound on the norm of the gradient of each.
        transformer: Shape of the transformer.
        imagination: Batches and rollouts.
        actor_critic: Returns and losses of actor and critic.
    """

    conv_width: int = 32
    hidden: int = 512
    num_layers: int = 2
    latent_groups: int = 32
    latent_classes: int = 32
    mix: float = 0.01
    num_bins: int = 255
    bin_limit: float = 20.0
    free_nats: float = 1.0
    image_coef: float = 1.0
    dynamics_coef: float = 0.5
    representation_coef: float = 0.1
    contrastive_coef: float = 1.0
    contrastive_steps: int = 10
    contrastive_decay: float = 0.75
    min_crop_area: float = 0.25
    behaviour_lr: float = 3e-5
    behaviour_eps: float = 1e-5
    behaviour_grad_clip: float = 100.0
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    imagination: ImaginationConfig = field(
        default_factory=lambda: ImaginationConfig(
            max_grad_norm=1000.0, eval_action="mode", start_continue="recorded"
        )
    )
    actor_critic: ActorCriticConfig = field(
        default_factory=lambda: ActorCriticConfig(discount=0.997)
    )

    def __post_init__(self) -> None:
        for name in ("conv_width", "hidden", "num_layers", "latent_groups", "contrastive_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"agent.config.{name} must be at least 1: {getattr(self, name)}.")
        if not self.image_coef > 0.0:
            raise UserError(f"agent.config.image_coef must be positive, got {self.image_coef}.")
        if self.latent_classes < 2:
            raise UserError(f"latent_classes must be at least 2, got {self.latent_classes}.")
        if not 0.0 < self.min_crop_area <= 1.0:
            raise UserError(f"min_crop_area must lie in (0, 1], got {self.min_crop_area}.")
        if self.transformer.left_context is None:
            raise UserError("TWISTER's transformer needs a left_context; 8 was published.")
        if self.contrastive_steps > self.imagination.sequence_length:
            raise UserError(
                f"contrastive_steps={self.contrastive_steps} is more than the "
                f"{self.imagination.sequence_length} steps of a subsequence; lower it."
            )
