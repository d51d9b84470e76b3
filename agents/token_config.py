"""Hyperparameters that STORM and TWISTER share, with the values that they have in common."""

from dataclasses import dataclass, field

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.models.functional import TwoHot
from mbrl_flat.models.transformer import TransformerConfig
from mbrl_flat.settings import CheckedSettings, setting


@dataclass(frozen=True, kw_only=True)
class TokenModelConfig(CheckedSettings):
    """Hyperparameters, all independent of the task and of the world model's optimizer.

    Attributes:
        conv_width: Channels of the first convolution; they double at each stage.
        hidden: Features of the hidden layers of actor and critic.
        latent_groups: Categoricals of a latent.
        latent_classes: Classes of each.
        mix: Share of the uniform distribution in posterior and prior.
        num_bins: Bins of the two-hot reward and value.
        bin_limit: Bins span [-limit, limit] in symlog space.
        free_nats: Each KL term counts at least this much.
        image_coef: Weight of the image error, a sum over pixels. The published 1 goes with 64x64
            pixels; where an object is a single pixel, its error must outweigh the nats that its
            place costs.
        dynamics_coef: Weight of the KL that moves the prior.
        representation_coef: Weight of the KL that moves the posterior.
        behaviour_lr: Learning rate of actor and critic.
        behaviour_eps: Epsilon of their Adam.
        behaviour_grad_clip: Bound on the norm of their gradient.
        transformer: Shape of the transformer.
        imagination: Batches and rollouts.
        actor_critic: Returns and losses of actor and critic.
    """

    conv_width: int = setting(32, "[1, inf)")
    hidden: int = setting(512, "[1, inf)")
    latent_groups: int = setting(32, "[1, inf)")
    latent_classes: int = setting(32, "[2, inf)")
    mix: float = 0.01
    num_bins: int = 255
    bin_limit: float = 20.0
    free_nats: float = 1.0
    image_coef: float = setting(1.0, "(0, inf)")
    dynamics_coef: float = 0.5
    representation_coef: float = 0.1
    behaviour_lr: float = 3e-5
    behaviour_eps: float = 1e-5
    behaviour_grad_clip: float = 100.0
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)

    @property
    def bins(self) -> TwoHot:
        """Bins of reward and value."""
        return TwoHot(num_bins=self.num_bins, low=-self.bin_limit, high=self.bin_limit)
