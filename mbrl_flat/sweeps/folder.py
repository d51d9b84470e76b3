"""The folder of a sweep: a folder for each run, named by its settings, and a record beside them.

    runs/sweep_20260101-120000/
      optimizer-sam_seed-1/     a run, as any other
      .sweep/logs/              what the runs printed
      .sweep/locks/             so that no run is made twice at the same time
      .sweep/starts/            for each start of the sweep what became of its runs

Names depend on the settings alone. A sweep that is started again in the same folder finds every
run it has made, and does what is missing.
"""

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mbrl_flat.errors import UserError
from mbrl_flat.runs.folder import create_run_folder
from mbrl_flat.runtime.file_names import as_file_name
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.settings import setting_key
from mbrl_flat.sweeps.outcome import RunOutcome, read_outcomes, summary

VARIABLE = "MBRL_FLAT_SWEEP"
"""Environment variable that tells a job which start of which sweep it belongs to."""

_FOLDER_KEYS = ("run_dir", "hydra.sweep.dir")
_UNNAMED_KEYS = ("run_dir", "progress", "debug", "objective")
"""Keys that do not change what a run computes."""


def quoted(path: Path | str) -> str:
    """A path as the value of an override, whatever its letters."""
    return "'" + str(path).replace("'", r"\'") + "'"


def run_name(overrides: Sequence[str]) -> str:
    """Name a run by its settings, the same whatever their order.

    Args:
        overrides: ``key=value`` of everything that the user set.

    Returns:
        Such as ``optimizer-sam_seed-1``. If anything had to be left out for a file's name, or for
        what can be typed after ``run=`` without quotes, a digest of the settings ends it.
    """
    kept = sorted(o for o in overrides if setting_key(o) not in _UNNAMED_KEYS)
    plain = "_".join(setting_key(o).replace("/", ".") + "-" + o.partition("=")[2] for o in kept)
    name = as_file_name(plain)
    if name == plain:
        return name or "defaults"
    digest = hashlib.sha256("\n".join(kept).encode()).hexdigest()[:8]
    return f"{name}.{digest}"


@dataclass(frozen=True, kw_only=True)
class SweepFolder:
    """One start of a sweep.

    Attributes:
        folder: The sweep's folder, absolute: jobs may have other working directories.
        start: Folder of the record of this start.
        new: Whether this start made the sweep's folder.
    """

    folder: Path
    start: Path
    new: bool = False

    @classmethod
    def begin(cls, arguments: Sequence[str]) -> Self:
        """Make or enter the folder that the arguments name, or a new one.

        Args:
            arguments: Those of the command, without its name.

        Returns:
            The sweep.

        Raises:
            UserError: If the folder cannot be made, is that of a run, or is not one folder.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        named = [a.partition("=")[2] for a in arguments if setting_key(a) in _FOLDER_KEYS]
        if named and not named[-1].strip("'\" "):
            raise UserError("run_dir is empty; give a folder, or leave run_dir out.")
        if not named or named[-1] == "null":
            folder, new = create_run_folder(Path(f"runs/sweep_{stamp}"), exact=False), True
        else:
            if "," in named[-1]:
                raise UserError(
                    f"With -m, run_dir is the folder of the whole sweep: one path, not {named[-1]}."
                )
            folder = Path(named[-1].strip("'\"").replace(r"\'", "'"))
            new = not folder.exists()
            _enter(folder)
        try:
            start = create_run_folder(folder / ".sweep" / "starts" / stamp, exact=False)
            for part in ("logs", "locks"):
                (folder / ".sweep" / part).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write to {folder}: {error.strerror}.") from error
        record = {"arguments": shlex.join(arguments), "cwd": str(Path.cwd()), "pid": os.getpid()}
        write_text_atomically(start / "start.txt", json.dumps(record, indent=2) + "\n")
        return cls(folder=folder.absolute(), start=start.absolute(), new=new)

    @classmethod
    def of_this_job(cls) -> Self | None:
        """The sweep that this process makes a run of, if it does."""
        start = os.environ.get(VARIABLE)
        return None if start is None else cls(folder=Path(start).parents[2], start=Path(start))

    @property
    def cwd(self) -> Path:
        """Where the command was given: what relative paths in the settings mean."""
        return Path(self._record()["cwd"])

    @property
    def pid(self) -> int:
        """The process that the command was."""
        return int(self._record()["pid"])

    def _record(self) -> dict[str, Any]:
        return json.loads((self.start / "start.txt").read_text(encoding="utf-8"))

    def arguments(self) -> list[str]:
        """What Hydra needs to be told."""
        start = quoted(self.start)
        return [f"hydra.sweep.dir={quoted(self.folder)}", f"+hydra.job.env_set.{VARIABLE}={start}"]

    def outcomes(self) -> list[RunOutcome]:
        """What became of the runs so far."""
        return read_outcomes(self.start)

    def end(self) -> tuple[list[str], bool]:
        """Sum up what became of the runs.

        Returns:
            Lines for a person, and whether every run is done.
        """
        outcomes = self.outcomes()
        if not outcomes:
            return [], True
        done = all(outcome.done for outcome in outcomes)
        lines = summary(outcomes)
        if not done:
            lines.append(
                f"the same command with run_dir={_shown(self.folder)} does what is missing; "
                f"logs are in {_shown(self.folder / '.sweep' / 'logs')}"
            )
        return lines, done

    def undo(self) -> None:
        """Take back what ``begin`` made, unless runs wait there or someone else uses it."""
        if self.outcomes() or (self.folder / ".submitit").exists():
            return
        shutil.rmtree(self.start, ignore_errors=True)
        (self.folder / "multirun.yaml").unlink(missing_ok=True)
        inner = self.folder / ".sweep"
        own = [self.folder] if self.new else []
        for folder in (inner / "starts", inner / "logs", inner / "locks", inner, *own):
            try:
                folder.rmdir()
            except OSError:
                return


def _enter(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} is the folder of one run; a sweep needs a folder of its own.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the sweep's folder {folder}: {error.strerror}.") from error


def _shown(path: Path) -> str:
    """Relative to here if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
