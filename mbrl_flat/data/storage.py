"""The arrays of a replay: what a slot holds, in memory or mapped from files on the disk.

Images are uint8 and kept once: of a stack of frames only the newest, since the others lie in the
slots before. ``joined_slots`` says in which.
"""

import os
import shutil
import sys
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
    """Make an array of zeros ``[*shape]``.

    Args:
        shape: Shape of the array, the capacity first.
        dtype: NumPy type of its entries.
        folder: Where the file is that holds it; ``None`` keeps it in memory. The file has no name
            and vanishes with the process: what must last is in the checkpoints.

    Returns:
        The array. Memory is taken when it is written to, disk space at once.

    Raises:
        UserError: If the disk or the memory is too small, or the file cannot be made.
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
            # A file with holes would end the process by SIGBUS once the disk is full.
            file.truncate(max(size, 1))
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        raise UserError(
            f"Cannot map the replay from a file in {folder} ({reason}): one of its arrays takes "
            f"{size:,} bytes, and {free:,} are free; free some space, choose a smaller "
            f"replay_capacity or use replay_storage=memory."
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
