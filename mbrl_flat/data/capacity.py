"""Whether a run has room and time to learn, checked before it begins."""

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.specs import EnvSpec


def check_capacity(replay: Replay, spec: EnvSpec, *, length: int, steps: int) -> None:
    """Refuse a replay that an episode in progress would empty of all whole ones.

    Args:
        replay: The replay, still empty; its slots and environments count.
        spec: Says how long episodes may be.
        length: Transitions in a subsequence.
        steps: Environment steps of the run; if all of them fit, nothing is ever overwritten.

    Raises:
        UserError: If an episode of full length leaves no room for a subsequence of another one.
    """
    if replay.complete_only and length > spec.episode_length:
        raise UserError(
            f"An update takes {length} transitions in a row, and no episode has more than "
            f"{spec.episode_length}; shorten the agent's sequences (its horizon)."
        )
    # At its last step, the open episode has as many observations as it has steps.
    enough = spec.episode_length + length + 1
    fits = replay.slots_per_env * replay.num_envs >= steps
    if not replay.complete_only or fits or replay.slots_per_env >= enough:
        return
    raise UserError(
        f"The replay holds {replay.slots_per_env - 1} steps of each of {replay.num_envs} "
        f"environments, and an episode of {spec.episode_length} steps would overwrite "
        f"all others before it ends; "
        f"set replay_capacity to at least {enough * replay.num_envs}."
    )


def check_memory(replay: Replay, *, rows: int, steps: int, memory: int, on_disk: bool) -> None:
    """Refuse a replay or a batch that the machine cannot hold; the system would end the run later.

    Args:
        replay: Still empty: its memory is taken as it fills.
        rows: Transitions in a batch.
        steps: Environment steps of the run, of which the replay holds no more.
        memory: Bytes of the machine.
        on_disk: Whether the replay is kept on the disk.

    Raises:
        UserError: If it is too large; names the setting to lower.
    """
    slots = replay.slots_per_env * replay.num_envs
    row = replay.nbytes / slots
    needed = {
        "replay": 0.0 if on_disk else row * min(slots, steps),
        "batch": row * rows,
    }
    advice = {
        "replay": "lower replay_capacity or steps, or set replay_storage=disk",
        "batch": "lower the agent's batch_size or the length of its sequences",
    }
    for name, size in needed.items():
        if size > memory:
            raise UserError(
                f"The {name} would take {size / 2**30:,.0f} GiB, and this machine has "
                f"{memory / 2**30:,.0f} GiB of memory; {advice[name]}."
            )


def why_no_update(replay: Replay, length: int) -> str:
    """Say why nothing can be learned from a replay, and what to do.

    Args:
        replay: What was collected.
        length: Transitions in a subsequence.

    Returns:
        The reason, as a part of an error message.
    """
    if replay.num_episodes and replay.num_heldout == replay.num_episodes:
        return (
            f"all {replay.num_episodes} episodes are held out "
            f"(heldout_fraction={replay.heldout_fraction}); lower heldout_fraction"
        )
    ended = " has ended" if replay.complete_only else " is there"
    return (
        f"an update takes {length} transitions in a row, and no training episode with as many"
        f"{ended}; make more steps, or shorten the agent's sequences (its horizon)"
    )
