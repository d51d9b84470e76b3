"""The folder of one run: made once, never overwritten, with what is needed to rebuild the run."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mbrl_flat.errors import UserError
from mbrl_flat.logging.console import say
from mbrl_flat.runtime.file_lock import NO_LOCKS, take_lock
from mbrl_flat.runtime.file_names import as_file_name
from mbrl_flat.runtime.files import check_inside
from mbrl_flat.runtime.plain_files import read_yaml

_PATIENCE_SECONDS = 5.0
_START = ("config.yaml", "environment.json", "study.json", "data.json", "replay", ".lock")
"""What a start leaves before its first step."""
_MADE: dict[Path, list[Path]] = {}
"""Run folders that this process made, each with the folders made for it, innermost first."""


def run_folder_path(named: str | None, names: Mapping[str, str], seed: int) -> Path:
    """Where a new run goes; nothing is made.

    Args:
        named: Where, if the user said so.
        names: What its task, agent and optimizer are called.
        seed: The run's seed, the last part of the name.

    Returns:
        That path, or one below ``runs`` that is named by all this and the time.

    Raises:
        UserError: If the path that was given is empty.
    """
    if named is not None and not named.strip():
        raise UserError("run_dir is empty; give a folder, or leave run_dir out.")
    # A task may be called module:ALE/Pong-v5, or be thirty tasks.
    parts = (as_file_name(names["task"]), names["agent"], names["optimizer"], f"s{seed}")
    default = "_".join((*parts, time.strftime("%Y%m%d-%H%M%S")))
    return Path(named or f"runs/{default}")


def new_run_folder(named: str | None, names: Mapping[str, str], seed: int) -> Path:
    """Make the folder of ``run_folder_path``."""
    return create_run_folder(run_folder_path(named, names, seed), exact=named is not None)


def create_run_folder(path: Path, *, exact: bool) -> Path:
    """Make a new folder.

    Args:
        path: The wanted folder, such as ``runs/NAME``.
        exact: The user named this path: an existing run there is an error. Otherwise a number is
            appended until the name is free, also when many processes ask in the same second.

    Returns:
        The folder made.

    Raises:
        UserError: If the path cannot be made, or exists and was named by the user.
    """
    candidate, number = path, 1
    above = [parent for parent in path.parents if not parent.exists()]
    try:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                candidate.mkdir()
                _MADE[candidate] = [candidate, *above]
                return candidate
            except FileExistsError:
                if exact and (_is_empty_folder(path) or _is_abandoned(path)):
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
    return path.is_dir() and all(inner.name == ".lock" for inner in path.iterdir())


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder holds a start of ours that was killed before its first step, and no more."""
    config = folder / "config.yaml"
    if not ((folder / ".lock").is_file() and config.is_file()) or _is_begun(folder):
        return False
    try:
        settings = read_yaml(config)
    except UserError:  # killed while it was written, or not ours
        return False
    return isinstance(settings, dict) and "run_dir" in settings


def _clear(folder: Path) -> None:
    """Remove what a start left; a lock that is held stays."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != ".lock":
            path.unlink(missing_ok=True)


@contextmanager
def removed_unless_begun(folder: Path, *, owned: bool = False) -> Iterator[None]:
    """After an error, remove the files of a run that has not recorded or saved anything.

    A folder that was there before stays, empty, and so do the folders above it.

    Args:
        folder: The run's folder.
        owned: Remove the folder also where an earlier process made it.
    """
    try:
        yield
    except BaseException:
        if not _is_begun(folder):
            _clear(folder)
            (folder / ".lock").unlink(missing_ok=True)
            with suppress(OSError):  # one of them has got something else meanwhile
                for made in _MADE.get(folder, [folder] if owned else []):
                    made.rmdir()
        raise


@contextmanager
def writing(folder: Path, *, new: bool) -> Iterator[None]:
    """Keep other processes from writing to a run's folder meanwhile.

    Where the file system has no locks nothing is kept from anyone.

    Args:
        folder: The run's folder.
        new: Whether the run is a new one; then ``removed_unless_begun``.

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
        if new and (folder / "config.yaml").exists():
            if lock is None or not _is_abandoned(folder):
                raise UserError(
                    f"Another process has begun a run in {folder}; choose another run_dir."
                )
            say(f"{folder} holds a run that was killed before its first step; it starts again.")
            _clear(folder)
        with removed_unless_begun(folder) if new else nullcontext():
            yield
    finally:
        if lock is not None:
            os.close(lock)


def _is_begun(folder: Path) -> bool:
    """Whether a run has recorded or saved something."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0]
    parts = {path.relative_to(folder).parts[0] for path in files}
    return not parts <= set(_START)
