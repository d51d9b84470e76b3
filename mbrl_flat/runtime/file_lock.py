"""A lock on a file, by which processes agree on who writes what belongs to it.

It ends with the last process that has its descriptor, however that process ends.
"""

import errno
import fcntl
import os
import time
from pathlib import Path

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system that has no locks answers."""

_POLL_SECONDS = 0.2


def take_lock(path: Path, *, patience: float) -> int:
    """Take the lock of a file, which is made if it is absent.

    Args:
        path: The file.
        patience: Seconds to wait for another process that has it.

    Returns:
        A descriptor; closing it gives the lock back.

    Raises:
        BlockingIOError: If another process has it.
        OSError: If the file cannot be opened, or its file system has no locks.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
            time.sleep(_POLL_SECONDS)
    except BaseException:
        os.close(lock)
        raise
