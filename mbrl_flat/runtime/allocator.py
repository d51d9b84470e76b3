"""Memory that torch frees stays with the process, so that the next tensor finds it there.

An update allocates and frees the same few hundred arrays of some megabytes. The C library's
default hands such blocks back to the system at once, and every new one is paid for in page
faults. On the 5M TD-MPC2 update that was a seventh of the time.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Ask glibc to serve blocks up to 1 GiB from the heap and not to trim it.

    Returns:
        Whether the C library understood; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
