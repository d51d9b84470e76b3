"""Whether a replay can do what it is for, said before a run begins."""

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.specs import EnvSpec


def check_capacity(replay: Replay, spec: EnvSpec, *, length: int, steps: int) -> None:
    """Refuse a replay that an episode in progress would empty of all whole ones.

    Args:
        replay: Still empty.
        spec: Says how long episodes may be.
        length: Transitions in a slice.
        steps: Environment steps of the run; if all of them fit, nothing is ever overwritten.

    Raises:
        UserError: If an episode of full length leaves no room for a slice of the one before it.
    """
    # At its last step, the open episode has as many observations as it has steps.
    enough = spec.episode_length + length + 1
    fits = replay.lane_size * replay.num_envs >= steps
    if not replay.complete_only or fits or replay.lane_size >= enough:
        return
    raise UserError(
        f"The replay holds {replay.lane_size - 1} steps of each of {replay.num_envs} environments, "
        f"and an episode of {spec.episode_length} steps would overwrite all others before it ends; "
        f"set replay_capacity to at least {enough * replay.num_envs}."
    )
