"""Ctrl-C, SIGTERM and a cluster's warning as a request to stop at the next safe moment.

A loop checks between its steps. Work that takes long and can be repeated, such as an evaluation, is
*cancellable*: within it ``check_interrupt`` raises ``Interrupted`` after a request to stop.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType

from mbrl_flat.errors import EndedAtStart

STOP_WITH_STDIN = "MBRL_FLAT_STOP_WITH_STDIN"
"""Environment variable: the end of standard input is a request to stop."""

STOP_SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU,
)  # fmt: skip
"""Signals that ask a run to stop.

Schedulers send SIGUSR1 and SIGUSR2 some time before a job's end, a terminal that is closed SIGHUP,
and the system SIGXCPU where the CPU time is limited.
"""

_NOTED = b"stopping and saving; once more to quit at once\n"

_STOP: ContextVar[Callable[[], bool]] = ContextVar("stop", default=lambda: False)


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Cancellable work stopped early because a stop was requested."""


@contextmanager
def cancellable(stop: Callable[[], bool]) -> Iterator[None]:
    """Let ``check_interrupt`` raise ``Interrupted`` in the body once ``stop()`` is true."""
    token = _STOP.set(stop)
    try:
        yield
    finally:
        _STOP.reset(token)


def check_interrupt() -> None:
    """Raise ``Interrupted`` in cancellable work if a stop was requested; else do nothing.

    Raises:
        Interrupted: The caller restores everything that the work has changed.
    """
    if _STOP.get()():
        raise Interrupted


class StopRequest:
    """Whether and by which signal the process was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process ended by that signal: 130 for Ctrl-C."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stop_requests(*, answer: bool = True) -> Iterator[StopRequest]:
    """Note signals that ask to stop instead of dying of them; a second one acts at once.

    A run of a sweep is also stopped by the end of its standard input, as if by SIGTERM. Outside
    the main thread signals cannot be caught, and nothing is changed.

    Args:
        answer: Say on standard error that the first one was noted.
    """
    request = StopRequest()
    if os.environ.get(STOP_WITH_STDIN):
        threading.Thread(target=_note_end_of_stdin, args=(request,), daemon=True).start()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal = signal.Signals(number)
        if request.signal == signal.SIGXCPU:  # The system repeats it each second by itself.
            previous[request.signal] = signal.SIG_IGN
        signal.signal(number, previous[request.signal])
        if answer:
            _tell(_NOTED)

    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    if previous[signal.SIGHUP] is signal.SIG_IGN:  # started by nohup
        del previous[signal.SIGHUP]
    for number in previous:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals that ask to stop raise ``EndedAtStart`` in the body, where they would kill.

    A second one kills. Outside the main thread signals cannot be caught, and nothing is changed.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_DFL)
        _tell(f"stopped by {signal.Signals(number).name} before the first step\n".encode())
        raise EndedAtStart(128 + number)

    in_main = threading.current_thread() is threading.main_thread()
    deadly = [n for n in STOP_SIGNALS if in_main and signal.getsignal(n) is signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)


def _note_end_of_stdin(request: StopRequest) -> None:
    # Not by sys.stdin: a thread that holds its lock stops the interpreter from ending.
    while os.read(0, 1):
        pass
    if request.signal is None:
        request.signal = signal.SIGTERM


def _tell(text: bytes) -> None:
    # Not by sys.stderr: the signal may have come while something was being printed there. And if
    # nobody reads it any more, that is no reason not to save the run.
    with suppress(OSError):
        os.write(2, text)


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process by Ctrl-C with status 130 and a word, not with where it happened to be."""
    try:
        yield
    except KeyboardInterrupt:
        _tell(b"interrupted\n")
        sys.exit(128 + signal.SIGINT)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in the body after a time; outside the main thread there is no limit.

    Args:
        seconds: How long the body may take.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise TimeoutError(f"it took more than {seconds:g} seconds")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
