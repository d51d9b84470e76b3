"""A run in a process of its own, that stops by itself when its parent does.

The child is asked to stop by the end of its standard input. That happens when the parent closes
it, and also when the parent is killed and can do nothing: no run is ever left alone. The child
has a session of its own, so that Ctrl-C and signals of a cluster reach it once and by this way.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mbrl_flat.runtime.interrupts import STOP_WITH_STDIN, StopRequest

_POLL_SECONDS = 0.2


def run_in_process(
    command: Sequence[str],
    *,
    request: StopRequest,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    keep_open: Sequence[int] = (),
    orphaned: Callable[[], bool] = lambda: False,
    on_start: Callable[[int], object] = lambda _pid: None,
) -> int:
    """Run a command and wait for its end.

    Args:
        command: Program and arguments; it stops by ``mbrl_flat.runtime.interrupts``.
        request: Once it is made, the child is asked to stop, and waited for.
        log: File that what it prints is appended to.
        cwd: Its working directory.
        environment: Its environment.
        keep_open: File descriptors that it inherits, such as a lock's.
        orphaned: Whether nobody waits for the run any more; then the request is made.
        on_start: Told its process id.

    Returns:
        Its exit status; that of a process ended by signal n is -n.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            cwd=cwd,
            # Unbuffered: the reason of a failure is the last line, whatever was printed before.
            env={**environment, STOP_WITH_STDIN: "1", "PYTHONUNBUFFERED": "1"},
            pass_fds=tuple(keep_open),
            start_new_session=True,
        )
    assert process.stdin is not None
    with process.stdin, _killed_unless_waited_for(process):
        on_start(process.pid)
        while process.poll() is None:
            if request.signal is None and orphaned():
                request.signal = signal.SIGTERM
            if request.signal is not None and not process.stdin.closed:
                process.stdin.close()
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    return process.returncode


@contextmanager
def _killed_unless_waited_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a child and its own with a parent that was told to quit at once."""
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def describe_status(status: int, log: Path) -> str:
    """Why a process ended, in one line.

    Args:
        status: Its exit status, not 0.
        log: What it printed; a run that fails says why in its last line.

    Returns:
        The reason.
    """
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", by hand or for want of memory" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}; its last checkpoint is whole"
    return _last_line(log) or f"ended with status {status}"


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
