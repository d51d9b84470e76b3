"""Files that are at every moment whole: written under a temporary name, then renamed."""

import os
from pathlib import Path
from typing import Any


def write_text_atomically(path: Path, text: str) -> None:
    """Write a small text file so that it is never half there."""
    temporary = path.with_name(path.name + ".tmp")
    # A folder's name may hold bytes that are no text.
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_atomically(value: Any, path: Path) -> None:
    """Write with ``torch.save`` so that ``path`` is at every moment whole, or as it was.

    Args:
        value: What to save.
        path: Where.

    Raises:
        OSError: If it cannot be written, as on a full disk; names the file, of which no part is
            left to fill the disk.
    """
    import torch  # noqa: PLC0415  # commands that only write text do without it

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
