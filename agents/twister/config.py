"""Hyperparameters of TWISTER; defaults are the published ones, size S.

References:
    Burchi & Timofte, "Learning Transformer-based World Models with Contrastive Predictive
    Coding", ICLR 2025, arXiv:2503.04416, and its code.
"""

from dataclasses import dataclass, field
from typing import Literal

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.agents.token_config import TokenModelConfig
from mbrl_flat.errors import UserError
from mbrl_flat.settings import setting


@dataclass(frozen=True, kw_only=True)
class TWISTERConfig(TokenModelConfig):
    """Hyperparameters beside those of ``TokenModelConfig``.

    Attributes:
        num_layers: Layers of every head, of actor and critic; all have ``hidden`` features.
        contrastive_coef: Weight of the contrastive loss; 0 leaves it out, and its cost.
        contrastive_steps: Steps K ahead that the contrastive loss predicts, at least 1.
        contrastive_decay: Base of the horizons' weights.
        min_crop_area: Smallest area of a crop.
        crop: How crops are drawn: ``continuous`` sides and places, cut to the image; or whole
            pixels, drawn again where they do not fit (``torchvision``, published).
    """

    num_layers: int = setting(2, "[1, inf)")
    contrastive_coef: float = 1.0
    contrastive_steps: int = setting(10, "[1, inf)")
    contrastive_decay: float = 0.75
    min_crop_area: float = setting(0.25, "(0, 1]")
    crop: Literal["continuous", "torchvision"] = "continuous"
    imagination: ImaginationConfig = field(
        default_factory=lambda: ImaginationConfig(
            max_grad_norm=1000.0, eval_action="mode", start_continue="recorded"
        )
    )
    actor_critic: ActorCriticConfig = field(
        default_factory=lambda: ActorCriticConfig(discount=0.997)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transformer.left_context is None:
            raise UserError("TWISTER's transformer needs a left_context; 8 was published.")
        if self.contrastive_steps > self.imagination.sequence_length:
            raise UserError(
                f"contrastive_steps={self.contrastive_steps} is more than the "
                f"{self.imagination.sequence_length} steps of a subsequence; lower it."
            )
