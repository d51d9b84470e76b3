"""Files that are whole at every moment, and paths that stay inside their folder."""

import csv
import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mbrl_flat.errors import UserError, cause_of

_REPLACED = {".yaml", ".json", ".pt", ".png", ".svg", ".mp4", ".html", ".csv", ".md"}
"""Endings of files that are written by another name first; all others are written in place."""

_SYNCS_NO_FOLDERS = {errno.EINVAL, errno.ENOTSUP}


@contextmanager
def replaced_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of ``path`` when the body ends without an error.

    Args:
        path: The file; its folder is made if it is absent.

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: If it cannot be written, as on a full disk; names ``path``, which is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _SYNCS_NO_FOLDERS:
                raise
        finally:
            os.close(folder)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch's writer ends in an error of its own where the file under it failed.
        found = cause_of(error, (OSError,)) if isinstance(error, OSError | RuntimeError) else None
        if isinstance(found, OSError):
            raise OSError(found.errno, found.strerror or str(found), str(path)) from error
        raise


def read_regular(path: Path, *, limit: int) -> bytes:
    """Read a file that someone else may have put there.

    Args:
        path: The file.
        limit: The most bytes that it may have.

    Returns:
        Its content.

    Raises:
        UserError: If it cannot be read, is larger, or is a pipe or a device, whose reader waits or
            never ends.
    """
    try:
        # What was opened is judged, which nobody can replace any more; a pipe does not wait.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{path} is a pipe or a device, not a file; restore it.")
            if found.st_size > limit:
                raise UserError(f"{path} is damaged (larger than {limit:,} bytes); restore it.")
            return file.read(limit + 1)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def write_text_atomically(path: Path, text: str) -> None:
    """Write a small text file so that it is never half there."""
    with replaced_whole(path) as file:
        # A folder's name may hold bytes that are no text.
        file.write(text.encode("utf-8", errors="backslashreplace"))


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before anything is computed for it.

    Args:
        folder: It need not exist.

    Raises:
        UserError: If it, or the nearest folder above that exists, is none or is read-only.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise UserError(f"Cannot write to {folder}: {nearest} is not a folder; choose another one.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write to {folder}: {nearest} is read-only; choose another one.")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows of a table, the names of its columns first, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def save_atomically(value: Any, path: Path) -> None:
    """Write with ``torch.save`` so that ``path`` is at every moment whole, or as it was."""
    import torch  # noqa: PLC0415  # commands that only write text do without it

    with replaced_whole(path) as file:
        torch.save(value, file)


def check_inside(folder: Path) -> None:
    """Refuse a folder in which a symbolic link leads out of it, or a pipe or a device lies.

    Args:
        folder: Such as that of a run; it may itself be a link.

    Raises:
        UserError: If writing to or reading from the folder could reach another place.
    """
    home = folder.resolve()
    for place, folders, files in os.walk(home):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_fifo() or path.is_char_device() or path.is_block_device():
                raise UserError(f"{path} is a pipe or a device; remove it.")
            if not path.is_symlink():
                replaced = path.suffix in _REPLACED and path.name[0] != "."
                if not replaced and path.is_file() and path.stat().st_nlink > 1:
                    raise UserError(
                        f"{path} is a hard link, by which a file outside of {folder} would be "
                        f"changed too; replace it by a copy."
                    )
                continue
            target = Path(os.path.realpath(path))
            if path.is_relative_to(target) or not target.is_relative_to(home):
                raise UserError(
                    f"{path} is a link to {target}, outside of {folder} or above the link itself; "
                    f"replace it by the file or folder itself."
                )
