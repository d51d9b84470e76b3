"""What happens when the turn of one run of a sweep has come, wherever that is.

A finished run is left alone, an interrupted one resumes from its checkpoint, and what cannot be
made is written down: a job never raises, so that the others are made whatever becomes of it.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from mbrl_flat.errors import UserError
from mbrl_flat.logging.console import say
from mbrl_flat.logging.jsonl import read_metrics
from mbrl_flat.runs.folder import create_run_folder, removed_unless_begun
from mbrl_flat.runtime.file_lock import NO_LOCKS, take_lock
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.interrupts import StopRequest, stop_requests
from mbrl_flat.runtime.plain_files import read_yaml
from mbrl_flat.runtime.settings import flatten
from mbrl_flat.sweeps.folder import VARIABLE, SweepFolder, quoted, run_name
from mbrl_flat.sweeps.outcome import RunOutcome
from mbrl_flat.sweeps.process import describe_status, run_in_process
from mbrl_flat.training.checkpoint import CheckpointFolder

_PARENT = os.getppid()
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_FREE_KEYS = ("run_dir", "resume", "threads", "progress", "debug", "objective", "names", "trust")
"""Settings that may differ between the starts of a sweep; names say again what others set."""
_LOCK_SECONDS = 60.0
"""How long a run that was told to stop may take to save itself."""
_KILL_SECONDS = 600.0
"""How long a scheduler may take from SIGTERM to the end of a job."""


def share_of_cores(launcher: Mapping[str, Any], cores: int) -> int:
    """CPU threads for one run, so that runs at the same time do not get in each other's way.

    Args:
        launcher: Settings of Hydra's launcher.
        cores: Cores that this process may use.

    Returns:
        What a cluster reserves for a run, or an equal share; 0 if nothing else runs.
    """
    if "cpus_per_task" in launcher:
        return int(launcher["cpus_per_task"] or 1)
    if "ray" in launcher:
        return max(1, int(launcher["ray"]["remote"].get("num_cpus") or 1))
    if "n_jobs" not in launcher:
        return 0
    at_once = launcher["n_jobs"]
    return max(1, cores // (at_once if at_once > 0 else cores))


class SweepJob:
    """One run of a sweep.

    Args:
        sweep: The sweep.
        overrides: The settings that the sweep gives this run.
        explain: Turns an error into one error message.
    """

    def __init__(
        self, sweep: SweepFolder, overrides: Sequence[str], *, explain: Callable[[Exception], str]
    ) -> None:
        self.sweep, self.explain = sweep, explain
        self.overrides = list(overrides)
        name = run_name(overrides)
        former = run_name([override.replace("variant=", "arm=") for override in overrides])
        if (sweep.folder / former).exists():
            name = former  # begun when the variant of a study was called its arm
        self.folder = sweep.folder / name
        self.outcome = RunOutcome(
            name=name,
            overrides=self.overrides,
            host=socket.gethostname(),
            job=os.environ.get("SLURM_JOB_ID", ""),
        )

    @classmethod
    def of_this_process(
        cls, overrides: Iterable[str], *, explain: Callable[[Exception], str]
    ) -> Self | None:
        """The job, if a launcher started this process or this call for one."""
        sweep = SweepFolder.of_this_job()
        kept = [override for override in overrides if not override.startswith("run_dir=")]
        return None if sweep is None else cls(sweep, kept, explain=explain)

    def train(
        self,
        settings: Callable[[], str],
        check: Callable[[], object],
        *,
        objective: str,
        trust: Sequence[str] = (),
    ) -> float | None:
        """Make, resume, or leave alone a training run.

        Args:
            settings: Gives the text of ``config.yaml``.
            check: Raises if the parts cannot be built.
            objective: Metric whose last value is the run's result.
            trust: What the run builds that is not part of this project.

        Returns:
            The objective, or ``None`` if it was not reached.
        """
        self.outcome.objective = objective

        def command() -> list[str] | None:
            text = settings()
            if (self.folder / "config.yaml").is_file():
                _check_same(self.folder / "config.yaml", text)
                if CheckpointFolder(self.folder / "checkpoints").finished:
                    return None
            else:
                check()
                create_run_folder(self.folder, exact=True)
                write_text_atomically(self.folder / "config.yaml", text)
            shown = [o for o in self.overrides if o.startswith("debug=")]
            trusted = [f"trust=[{','.join(trust)}]"] if trust else []
            return [f"resume={quoted(self.folder)}", "progress=false", *trusted, *shown]

        return self.run("train", command)

    def run(self, entry: str, command: Callable[[], Sequence[str] | None]) -> float | None:
        """Run a command of the package, unless it has been done or is being done.

        Args:
            entry: Name of its function in ``mbrl_flat.cli.main``.
            command: Its arguments, or ``None`` if there is nothing to do.

        Returns:
            The objective, or ``None`` if it was not reached.
        """
        request = StopRequest()
        if self._is_orphaned():
            # Runs that were handed out in advance are not begun after the end of the sweep.
            request.signal = signal.SIGTERM
            _obey(request)
            return None
        try:
            with self._lock() as lock:
                arguments = command()
                if arguments is None:
                    self.outcome.status = "finished before"
                else:
                    with stop_requests() as request, removed_unless_begun(self.folder, owned=True):
                        self._run(entry, arguments, request, lock)
            if self.outcome.done:
                self.outcome.value = _last_value(self.folder, self.outcome.objective)
        except Exception as error:  # the others must continue, whatever it is
            self.outcome.status, self.outcome.reason = "failed", self.explain(error)
        self.outcome.write(self.sweep.start)
        say(self.outcome.line())
        _obey(request)
        return self.outcome.value

    def _run(self, entry: str, arguments: Sequence[str], request: StopRequest, lock: int) -> None:
        log = self.sweep.folder / ".sweep" / "logs" / f"{self.outcome.name}.log"
        code = f"from mbrl_flat.cli.main import {entry}; {entry}()"
        status = run_in_process(
            # -P: what lies in the working directory is no module of this project.
            [sys.executable, "-P", "-c", code, *arguments],
            request=request,
            log=log,
            cwd=self.sweep.cwd,
            environment={k: v for k, v in os.environ.items() if k != VARIABLE},
            keep_open=(lock,),
            orphaned=self._is_orphaned,
            on_start=self._begun,
        )
        if status == 0:
            self.outcome.status = "finished"
        elif status - 128 in _STOPS:
            by = signal.Signals(request.signal or status - 128).name
            self.outcome.status, self.outcome.reason = "stopped", f"by {by}, with a checkpoint"
        else:
            raise UserError(describe_status(status, log))

    def _is_orphaned(self) -> bool:
        """Whether the command that this process works for is gone; its shell may go."""
        if os.getpid() == self.sweep.pid or "SUBMITIT_EXECUTOR" in os.environ:
            return False
        return os.getppid() != _PARENT

    def _begun(self, pid: int) -> None:
        self.outcome.pid = pid
        self.outcome.write(self.sweep.start)

    @contextmanager
    def _lock(self) -> Iterator[int]:
        """Keep other jobs from the same run; the lock ends with the last process that has it."""
        path = self.sweep.folder / ".sweep" / "locks" / self.outcome.name
        try:
            lock = take_lock(path, patience=_LOCK_SECONDS)
        except BlockingIOError as error:
            raise UserError("another process is making this run; it was left to it") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise UserError(
                f"the file system of the sweep's folder has no locks ({error.strerror}), which "
                f"keep two jobs from one run; mount it with locks (Lustre: -o flock) or take "
                f"another run_dir"
            ) from error
        try:
            yield lock
        finally:
            os.close(lock)


def _check_same(file: Path, text: str) -> None:
    """Refuse to resume a run of other settings."""
    old = read_yaml(file)
    new = yaml.load(text, Loader=yaml.CSafeLoader)
    before, now = dict(flatten(old)), dict(flatten(new))
    differing = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    differing = [key for key in differing if key.partition(".")[0] not in _FREE_KEYS]
    if differing:
        key = differing[0]
        raise UserError(
            f"{file.parent} holds a run with {key}={before.get(key)}, not {now.get(key)}; choose "
            f"another run_dir for this sweep, or move that run away."
        )


def _last_value(folder: Path, metric: str) -> float | None:
    file = folder / "metrics.jsonl"
    rows = read_metrics(file) if file.is_file() else []
    return next((row[metric] for row in reversed(rows) if metric in row), None)


def _obey(request: StopRequest) -> None:
    """Do what the signal asked for, now that the run is saved.

    Under submitit its own handler requeues the job at SIGUSR2, and SLURM ends a job that it has
    sent SIGTERM to: a job that returned before that would count as done and not be requeued.
    """
    if request.signal is None:
        return
    os.kill(os.getpid(), request.signal)
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        time.sleep(_KILL_SECONDS)
