"""A copy of the replay's arrays on the device that learns: batches are gathered where they go.

What was written since the last batch is sent before the next one, a few slots at a time. The
draw of the subsequences stays on the host, so the batches are those of a replay without a mirror.

References:
    The official code of TD-MPC2 keeps its buffer on the GPU where 2.5 times its size is free.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.runtime.device import free_memory, transfer

_HEADROOM = 2.5
MIRROR_CHOICES = ("auto", "always", "never")


def wants_mirror(choice: str, nbytes: int, device: torch.device) -> bool:
    """Say whether a replay is to be mirrored.

    Args:
        choice: One of ``MIRROR_CHOICES``; ``auto`` is for an accelerator on which 2.5 times the
            replay's size is free.
        nbytes: Size of the replay when full, in bytes.
        device: Where the agent learns.

    Returns:
        The decision.
    """
    if choice == "auto":
        return device.type != "cpu" and free_memory(device) >= _HEADROOM * nbytes
    return choice == "always"


class DeviceMirror:
    """Ring buffers on a device that follow those of the host.

    Args:
        arrays: The host's arrays ``[num_envs, slots, ...]`` by name.
        device: Where the copies live.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], device: torch.device) -> None:
        self._arrays = arrays
        self._device = device
        self._copies = {
            name: torch.zeros(array.shape, dtype=torch.from_numpy(array[:0]).dtype, device=device)
            for name, array in arrays.items()
        }
        self._seen = np.zeros(next(iter(arrays.values())).shape[0], np.int64)

    def forget(self) -> None:
        """Send everything again before the next batch."""
        self._seen[:] = 0

    def _follow(self, write_pos: np.ndarray) -> None:
        for env_index in np.flatnonzero(write_pos != self._seen):
            size = next(iter(self._arrays.values())).shape[1]
            # The slot before was completed since: its action came after its observation.
            begin = max(int(self._seen[env_index]) - 1, int(write_pos[env_index]) - size, 0)
            slots = np.arange(begin, int(write_pos[env_index])) % size
            index = transfer(torch.from_numpy(slots), self._device)
            for name, array in self._arrays.items():
                piece = transfer(torch.from_numpy(array[env_index, slots]), self._device)
                self._copies[name][int(env_index)].index_copy_(0, index, piece)
        self._seen[:] = write_pos

    def take(
        self, name: str, env_index: np.ndarray, slots: np.ndarray, *, write_pos: np.ndarray
    ) -> Tensor:
        """Gather from one array, after the slots written since are sent.

        Args:
            name: Name of the array in the storage, such as ``reward``.
            env_index: Environment of each subsequence ``[M, 1]``.
            slots: Slots of each subsequence ``[M, T]``.
            write_pos: Number of slots written by each environment so far ``[num_envs]``.

        Returns:
            ``[M, T, ...]``, on the device.
        """
        self._follow(write_pos)
        where = [transfer(torch.from_numpy(index), self._device) for index in (env_index, slots)]
        return self._copies[name][where[0], where[1]]
