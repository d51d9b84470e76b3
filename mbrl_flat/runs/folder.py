"""The folder of one run: made once, never overwritten, with what is needed to rebuild the run."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mbrl_flat.errors import UserError
from mbrl_flat.runtime.file_lock import NO_LOCKS, take_lock
from mbrl_flat.runtime.file_names import as_file_name
from mbrl_flat.runtime.files import check_inside

_PATIENCE_SECONDS = 5.0


def new_run_folder(named: str | None, names: Mapping[str, str], seed: int) -> Path:
    """Make the folder of a new run.

    Args:
        named: Where, if the user said so.
        names: What its task, agent and optimizer are called.
        seed: Its seed.

    Returns:
        That folder, or one below ``runs`` that is named by all this and the time.
    """
    # A task may be called module:ALE/Pong-v5, or be thirty tasks.
    parts = (as_file_name(names["task"]), names["agent"], names["optimizer"], f"s{seed}")
    default = "_".join((*parts, time.strftime("%Y%m%d-%H%M%S")))
    return create_run_folder(Path(named or f"runs/{default}"), exact=named is not None)


def create_run_folder(path: Path, *, exact: bool) -> Path:
    """Make a new folder.

    Args:
        path: Where.
        exact: The user named this path: an existing run there is an error. Otherwise a number is
            appended until the name is free, also when many processes ask in the same second.

    Returns:
        The folder made.

    Raises:
        UserError: If the path cannot be made, or exists and was named by the user.
    """
    candidate, number = path, 1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                candidate.mkdir()
                return candidate
            except FileExistsError:
                if exact and _is_empty_folder(path):
                    return path
                if exact:
                    raise UserError(
                        f"The run folder {path} exists already and is never overwritten; "
                        f"choose another run_dir, or resume it with resume={path}."
                    ) from None
                number += 1
                candidate = path.with_name(f"{path.name}-{number}")
    except OSError as error:
        raise UserError(f"Cannot make the run folder {path}: {error.strerror}.") from error


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


@contextmanager
def removed_unless_begun(folder: Path) -> Iterator[None]:
    """After an error, remove the folder of a run that has not recorded or saved anything."""
    try:
        yield
    except BaseException:
        if not _is_begun(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def writing(folder: Path, *, new: bool) -> Iterator[None]:
    """Keep other processes from writing to a run's folder meanwhile.

    Where the file system has no locks nothing is kept from anyone.

    Args:
        folder: The run's folder.
        new: Whether it was made for this; then ``removed_unless_begun``.

    Raises:
        UserError: If another process writes to it.
        OSError: If it cannot be written.
    """
    lock = None
    check_inside(folder)
    try:
        # One that was just ended may still be on its way out.
        lock = take_lock(folder / ".lock", patience=_PATIENCE_SECONDS)
    except BlockingIOError as error:
        raise UserError(
            f"Another process is writing to {folder}; wait for its end, or end it first."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        with removed_unless_begun(folder) if new else nullcontext():
            yield
    finally:
        if lock is not None:
            os.close(lock)


def _is_begun(folder: Path) -> bool:
    """Whether there is more than what a start leaves before its first step."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0]
    parts = {path.relative_to(folder).parts[0] for path in files}
    return not parts <= {"config.yaml", "environment.json", "study.json", "data.json", "replay"}
