"""When things happen in a run."""

from dataclasses import dataclass

from mbrl_flat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """When things happen in a run; all in agent steps.

    Attributes:
        steps: Length of the run.
        seed: Determines every random draw.
        seed_steps: Steps of random actions before learning; when they are over, as many updates
            are made as would have been due.
        updates_per_step: Update-to-data ratio.
        log_every: Interval of training metrics.
        eval_every: Interval of evaluations; 0 means never.
        probe_every: Interval of the probes; 0 means never.
        checkpoint_every: Interval of checkpoints; 0 means only at the end.
    """

    steps: int
    seed: int
    seed_steps: int
    updates_per_step: float = 1.0
    log_every: int = 1000
    eval_every: int = 10_000
    probe_every: int = 10_000
    checkpoint_every: int = 10_000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}.")
        if not 0.0 <= self.updates_per_step < float("inf"):
            raise UserError(f"updates_per_step must be at least 0, got {self.updates_per_step}.")
        for name in ("seed_steps", "log_every", "eval_every", "probe_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be at least 0, got {getattr(self, name)}.")


def check_steps(config: TrainConfig, *, num_envs: int, learns: bool) -> None:
    """Refuse a run that would end before its first update.

    Args:
        config: When things happen.
        num_envs: Environments at once.
        learns: Whether the agent learns at all.

    Raises:
        UserError: If it would.
    """
    steps, seed_steps, ratio = config.steps, config.seed_steps, config.updates_per_step
    made = -(-steps // num_envs) * num_envs
    if learns and ratio > 0.0 and (made < seed_steps or made * ratio < 1.0):
        raise UserError(
            f"A run of steps={steps} with seed_steps={seed_steps} and updates_per_step={ratio:g} "
            f"ends before its first update; give more steps, or fewer seed_steps."
        )
