"""Hyperparameters of TD-MPC2; defaults are the published ones.

References:
    Hansen et al., "TD-MPC2: Scalable, Robust World Models for Continuous Control", ICLR 2024,
    arXiv:2310.16828, appendix, and the official code at e9f5932.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.planning.mppi import MPPIConfig
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.specs import EnvSpec, TaskSpec

SIZES: dict[str, dict[str, int]] = {
    "1": {"enc_dim": 256, "mlp_dim": 384, "latent_dim": 128, "num_enc_layers": 2, "num_q": 2},
    "5": {"enc_dim": 256, "mlp_dim": 512, "latent_dim": 512, "num_enc_layers": 2, "num_q": 5},
    "19": {"enc_dim": 1024, "mlp_dim": 1024, "latent_dim": 768, "num_enc_layers": 3, "num_q": 5},
    "48": {"enc_dim": 1792, "mlp_dim": 1792, "latent_dim": 768, "num_enc_layers": 4, "num_q": 5},
    "317": {"enc_dim": 4096, "mlp_dim": 4096, "latent_dim": 1376, "num_enc_layers": 5, "num_q": 8},
    # Not published: small enough to learn in minutes on two CPU cores, and to test with.
    "cpu": {"enc_dim": 64, "mlp_dim": 128, "latent_dim": 64, "num_enc_layers": 2, "num_q": 2},
    "debug": {"enc_dim": 16, "mlp_dim": 32, "latent_dim": 16, "num_enc_layers": 2, "num_q": 3},
}
"""Network sizes by their label in millions of parameters, and two small ones."""

CONV_CHANNELS = {"cpu": 16, "debug": 4}
"""Channels of the encoder of images by size label; 32, as published, for all others."""


@dataclass(frozen=True, kw_only=True)
class TDMPC2Config(CheckedSettings):
    """Hyperparameters, all independent of the task and of the world model's optimizer.

    Attributes:
        size: Label in ``SIZES``.
        task_dim: Size of the learned embedding of each of several tasks; 0 where there is one. The
            published sizes are 96 for mt80, and for mt30 with sizes 1 and 317; else 64.
        simnorm_size: Members V of a SimNorm group.
        num_bins: Bins of the two-hot reward and value heads.
        bin_limit: Bins span [-limit, limit] in symlog space.
        dropout: Dropout of the first hidden layer of each Q-function.
        q_init: Start of the Q-functions' hidden layers. ``kaiming_uniform`` is that of the
            published runs, ``truncated_normal`` the documented one.
        episodic: Learn a termination head and plan with it; needed where episodes terminate.
        mask_terminated: Let a termination end the return in TD targets (the published code for
            HumanoidBench did not).
        horizon: Length H of model rollouts and plans, in agent steps.
        batch_size: Subsequences in a batch.
        temporal_decay: Weight of step t in the losses is its power t. The paper calls it rho;
            here rho is the radius of sharpness-aware methods and nothing else.
        consistency_coef: Weight of the latent prediction loss.
        reward_coef: Weight of the reward loss.
        value_coef: Weight of the value loss.
        termination_coef: Weight of the termination loss.
        random_shift: Largest shift in pixels of the augmentation of images; 0 for none.
        enc_lr_scale: Learning rate of the encoder relative to the rest of the model.
        grad_clip: Bound on the joint gradient norm, of the model and of the policy.
        policy_lr: Learning rate of the policy's own Adam.
        entropy_coef: Weight of the policy's scaled entropy.
        policy_latents: What the policy learns on: the ``rollout`` of the loss, ``z_0..z_H``, as
            published, or the observations ``o_0..o_{H-1}`` ``encoded`` by the updated model, as
            the public code of TD-MPC2 with SAM does.
        targets: Whether the loss regresses on targets of the unperturbed model in every evaluation
            of a step (``fixed``), or on targets ``recomputed`` at the weights of each evaluation,
            from the same draws. They differ where the optimizer evaluates at perturbed weights.
        log_std_min: Lower bound of the policy's log standard deviation.
        log_std_max: Upper bound of the policy's log standard deviation.
        target_rate: Share of the way that target Q-functions move in an update (tau).
        discount_denom: The discount heuristic's divisor of the episode length.
        discount_min: Its lower bound.
        discount_max: Its upper bound.
        planner: MPPI hyperparameters; its horizon is replaced by the one here.
        wide_action_size: Action size from which on two more iterations are planned.
        planner_dtype: Precision in which plans are valued. ``bfloat16`` pays where the hardware
            multiplies in it; ranking plans is all that it touches, learning stays float32.
        cuda_graphs: With ``compile=true``, replay the loss and the planner as CUDA graphs.
    """

    size: str = "5"
    task_dim: int = setting(0, "[0, inf)")
    simnorm_size: int = setting(8, "[1, inf)")
    num_bins: int = setting(101, "[1, inf)")
    bin_limit: float = setting(10.0, "(0, inf)")
    dropout: float = setting(0.01, "[0, 1)")
    q_init: Literal["truncated_normal", "kaiming_uniform"] = "kaiming_uniform"
    episodic: bool = False
    mask_terminated: bool = True
    horizon: int = setting(3, "[1, inf)")
    batch_size: int = setting(256, "[1, inf)")
    temporal_decay: float = setting(0.5, "[0, 1]")
    consistency_coef: float = setting(20.0, "[0, inf)")
    reward_coef: float = setting(0.1, "[0, inf)")
    value_coef: float = setting(0.1, "[0, inf)")
    termination_coef: float = setting(1.0, "[0, inf)")
    random_shift: int = setting(3, "[0, inf)")
    enc_lr_scale: float = setting(0.3, "[0, inf)")
    grad_clip: float = setting(20.0, "(0, inf]")
    policy_lr: float = setting(3e-4, "(0, inf)")
    entropy_coef: float = setting(1e-4, "[0, inf)")
    policy_latents: Literal["rollout", "encoded"] = "rollout"
    targets: Literal["fixed", "recomputed"] = "fixed"
    log_std_min: float = -10.0
    log_std_max: float = 2.0
    target_rate: float = setting(0.01, "[0, 1]")
    discount_denom: float = setting(5.0, "(0, inf)")
    discount_min: float = setting(0.95, "[0, 1]")
    discount_max: float = setting(0.995, "[0, 1]")
    planner: MPPIConfig = field(default_factory=MPPIConfig)
    wide_action_size: int = 20
    planner_dtype: Literal["float32", "bfloat16"] = "float32"
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if str(self.size) not in SIZES:
            raise UnknownNameError("model size", str(self.size), SIZES, where="agent=tdmpc2")
        for low, high in (("log_std_min", "log_std_max"), ("discount_min", "discount_max")):
            if not getattr(self, low) <= getattr(self, high):
                raise UserError(
                    f"{low} must be at most {high}={getattr(self, high)}, got {getattr(self, low)}."
                )
        if self.dims["latent_dim"] % self.simnorm_size:
            raise UserError(
                f"The latent size {self.dims['latent_dim']} of size={self.size} is not divisible "
                f"by simnorm_size={self.simnorm_size}."
            )

    @property
    def dims(self) -> dict[str, int]:
        """Layer sizes of the chosen model size."""
        return SIZES[str(self.size)]

    @property
    def conv_channels(self) -> int:
        """Channels of the encoder of images."""
        return CONV_CHANNELS.get(str(self.size), 32)

    def discount(self, spec: EnvSpec | TaskSpec) -> float:
        """Heuristic ``clip((T/5 - 1) / (T/5))`` of the episode length T in agent steps."""
        scaled = spec.episode_length / self.discount_denom
        return min(max((scaled - 1.0) / scaled, self.discount_min), self.discount_max)

    def planner_for(self, spec: EnvSpec) -> MPPIConfig:
        """MPPI settings for a task: the model's horizon, more iterations for wide actions."""
        extra = 2 if spec.action.size >= self.wide_action_size else 0
        return replace(
            self.planner, horizon=self.horizon, iterations=self.planner.iterations + extra
        )
