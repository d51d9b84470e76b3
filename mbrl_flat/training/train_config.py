"""When things happen in a run."""

from dataclasses import dataclass

from mbrl_flat.errors import UserError
from mbrl_flat.settings import CheckedSettings, setting


@dataclass(frozen=True, kw_only=True)
class TrainConfig(CheckedSettings):
    """When things happen in a run; all in agent steps.

    Attributes:
        steps: Length of the run.
        seed: Determines every random draw.
        seed_steps: Steps of random actions before learning; when they are over, as many updates
            are made as would have been due.
        updates_per_step: Updates per agent step; 0.5 is one in every second step, 0 none at all.
        log_every: Interval of training metrics.
        eval_every: Interval of evaluations; 0 means never.
        probe_every: Interval of the probes; 0 means never.
        checkpoint_every: Interval of checkpoints; 0 means only at the end.
    """

    steps: int = setting(allowed="[1, inf)")
    seed: int
    seed_steps: int = setting(allowed="[0, inf)")
    updates_per_step: float = setting(1.0, "[0, inf)")
    log_every: int = setting(1000, "[0, inf)")
    eval_every: int = setting(10_000, "[0, inf)")
    probe_every: int = setting(10_000, "[0, inf)")
    checkpoint_every: int = setting(10_000, "[0, inf)")


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
