"""Hyperparameters of DreamerV3; defaults are the published ones.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, Nature 2025,
    and the official code (``configs.yaml``).
"""

from dataclasses import dataclass, field

from mbrl_flat.agents.actor_critic import ActorCriticConfig
from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.settings import CheckedSettings, setting

SIZES: dict[str, dict[str, int]] = {
    "1M": {"deter": 512, "hidden": 64, "classes": 4, "depth": 4, "units": 64},
    "12M": {"deter": 2048, "hidden": 256, "classes": 16, "depth": 16, "units": 256},
    "25M": {"deter": 3072, "hidden": 384, "classes": 24, "depth": 24, "units": 384},
    "50M": {"deter": 4096, "hidden": 512, "classes": 32, "depth": 32, "units": 512},
    "100M": {"deter": 6144, "hidden": 768, "classes": 48, "depth": 48, "units": 768},
    "200M": {"deter": 8192, "hidden": 1024, "classes": 64, "depth": 64, "units": 1024},
    "400M": {"deter": 12288, "hidden": 1536, "classes": 96, "depth": 96, "units": 1536},
    # Not published: small enough to learn in minutes on two CPU cores, and to test with.
    "cpu": {"deter": 128, "hidden": 64, "classes": 8, "depth": 4, "units": 64},
    "debug": {"deter": 16, "hidden": 8, "classes": 4, "depth": 2, "units": 16},
}
"""Network sizes by their label in millions of parameters, and two small ones."""


@dataclass(frozen=True, kw_only=True)
class DreamerV3Config(CheckedSettings):
    """Hyperparameters, all independent of the task and of the world model's optimizer.

    Attributes:
        size: Label in ``SIZES``. The published runs use 200M, and 1M for DMC from proprioception.
        categoricals: Categorical variables of a stochastic state.
        blocks: Blocks of the recurrent state.
        unimix: Share of the uniform distribution in the categoricals of a state.
        actor_unimix: Its share in a discrete policy, by default the same. The official code
            ignores it there: 0 is what the published runs had.
        num_bins: Bins of the reward head and the critic.
        bin_limit: They span ``symexp([-limit, limit])``.
        free_nats: KL terms below it count as it, for each state.
        image_coef: Weight of the image error, a sum over pixels. The published 1 goes with 64x64
            pixels; where an object is a single pixel, its error must outweigh the nats that its
            place costs.
        dynamics_coef: Weight of the KL that moves the prior.
        representation_coef: Weight of the KL that moves the posterior.
        behaviour_lr: Learning rate of actor and critic.
        imagination: Batches, rollouts and actions.
        actor_critic: Returns and losses of the behaviour.
    """

    size: str = "200M"
    categoricals: int = setting(32, "[1, inf)")
    blocks: int = setting(8, "[1, inf)")
    unimix: float = setting(0.01, "[0, 1)")
    actor_unimix: float | None = setting(None, "[0, 1)")
    num_bins: int = 255
    bin_limit: float = 20.0
    free_nats: float = 1.0
    image_coef: float = setting(1.0, "(0, inf)")
    dynamics_coef: float = 1.0
    representation_coef: float = 0.1
    behaviour_lr: float = 4e-5
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    actor_critic: ActorCriticConfig = field(
        default_factory=lambda: ActorCriticConfig(replay_coef=0.3)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in SIZES:
            raise UnknownNameError("model size", str(self.size), SIZES, where="agent=dreamerv3")
        if self.dims["deter"] % self.blocks:
            raise UserError(
                f"The recurrent size {self.dims['deter']} of size={self.size} is not divisible by "
                f"blocks={self.blocks}."
            )

    @property
    def dims(self) -> dict[str, int]:
        """Layer sizes of the chosen model size."""
        return SIZES[self.size]
