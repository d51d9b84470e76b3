"""The arrays of a replay: what a slot holds, in memory or mapped from files on the disk.

Images are uint8 and kept once: of a stack of frames only the newest, since the others lie in the
slots before. ``joined_slots`` says in which.
"""

import tempfile
from pathlib import Path

import numpy as np

from mbrl_flat.errors import UserError
from mbrl_flat.specs import EnvSpec


def slot_layout(spec: EnvSpec) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of everything that one slot holds, by the name of its array."""
    layout: dict[str, tuple[tuple[int, ...], type]] = {}
    for name, shape in spec.obs.items():
        if name in spec.images:
            layout[f"obs/{name}"] = ((shape[0] // spec.frame_stack, *shape[1:]), np.uint8)
        else:
            layout[f"obs/{name}"] = (shape, np.float32)
    layout["action"] = ((spec.action.size,), np.float32)
    layout["reward"] = ((), np.float32)
    layout["terminated"] = layout["is_first"] = ((), np.bool_)
    # Odd for held-out episodes, so that one number says both which episode and which part.
    layout["episode"] = ((), np.int64)
    return layout


def allocate(shape: tuple[int, ...], dtype: type, folder: Path | None) -> np.ndarray:
    """Make an array of zeros.

    Args:
        shape: Its shape.
        dtype: Its type.
        folder: Where the file is that holds it; ``None`` keeps it in memory. The file has no name
            and vanishes with the process: what must last is in the checkpoints.

    Returns:
        The array; neither memory nor disk is taken before it is written to.

    Raises:
        UserError: If the file cannot be made, or the machine has not that much memory.
    """
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if folder is None:
        try:
            return np.zeros(shape, dtype)
        except (MemoryError, ValueError) as error:
            raise UserError(
                f"The replay does not fit into memory: one of its arrays takes {size / 2**30:,.0f} "
                f"GiB; choose a smaller replay_capacity, or replay_storage=disk."
            ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(max(size, 1))
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"Cannot map the replay from a file in {folder} ({reason}); free some space, choose a "
            f"smaller replay_capacity or use replay_storage=memory."
        ) from error


def joined_slots(
    episode: np.ndarray, env_index: np.ndarray, index: np.ndarray, num: int
) -> list[np.ndarray]:
    """Say where the frames are of the stacks that end at ``index``, oldest first.

    Args:
        episode: Episode number of every slot ``[num_envs, slots]``.
        env_index: Environment of each subsequence ``[M, 1]``.
        index: Positions in the order of writing ``[M, T + 1]``.
        num: Frames of a stack. Before the first frame of an episode comes that frame again.

    Returns:
        ``num`` arrays of positions ``[M, T + 1]``.
    """
    size = episode.shape[1]
    found = [index]
    for age in range(1, num):
        before = index - age
        same = episode[env_index, before % size] == episode[env_index, index % size]
        found.insert(0, np.where(same & (before >= 0), before, found[0]))
    return found
