"""A sweep from its start to the list of what became of its runs."""

import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from mbrl_flat.distributed.processes import is_launched
from mbrl_flat.errors import MissingExtraError, UserError
from mbrl_flat.logging.console import say
from mbrl_flat.runs.objective import check_objective
from mbrl_flat.runtime.interrupts import STOP_SIGNALS
from mbrl_flat.runtime.settings import setting_key
from mbrl_flat.sweeps.folder import SweepFolder

_PLUGIN = re.compile(
    r"hydra_plugins\.hydra_(\w+)|hydra/(?:launcher|sweeper)/(joblib|submitit|ray|optuna)"
)
"""How Hydra names what it does not find: as a class, or as a configuration."""

_SHOWS = re.compile(r"(--cfg|-c|--info|-i|--shell-completion|-sc)(=|$)")
"""Hydra's flags that print something instead."""


class _Stopped(KeyboardInterrupt):
    """As Ctrl-C, by another signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let other signals that ask to stop do what Ctrl-C does; a first process has no default."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise _Stopped(number)

    # A shell starts what runs in the background with Ctrl-C ignored; a run obeys it all the same,
    # and the sweep must not begin the next one then.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    others = [number for number in STOP_SIGNALS if number != signal.SIGINT or ignored]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # started by nohup
        others.remove(signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in others}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wants_sweep(arguments: Sequence[str]) -> bool:
    """Whether these arguments of a command ask for many runs."""
    return any(a in ("-m", "--multirun", "hydra.mode=MULTIRUN") for a in arguments)


def _check(arguments: Sequence[str]) -> None:
    """Refuse what no sweep can do, before its folder is made."""
    if is_launched():
        raise UserError(
            "torchrun splits one run and -m starts many; leave out -m, or start the sweep alone."
        )
    if shows := next(filter(_SHOWS.match, arguments), None):
        raise UserError(f"{shows} shows one run and -m starts many; leave out one of them.")
    for argument in [a for a in arguments if setting_key(a) == "objective"]:
        check_objective(argument.partition("=")[2].strip("'\""))


def make_sweep(
    arguments: list[str], main: Callable[[], object], refusals: tuple[type[Exception], ...]
) -> None:
    """Make all runs that are not finished, and exit with status 1 if some could not be.

    Args:
        arguments: Those of the process; what the launcher must know is appended.
        main: Hands them to sweeper and launcher.
        refusals: Errors in the command line, raised before a run is started.

    Raises:
        UserError: If the launcher or the sweeper fails, torchrun started several of these, or a
            configuration shall be shown.
        MissingExtraError: If it is not installed.
    """
    _check(arguments[1:])
    sweep = SweepFolder.begin(arguments[1:])
    say(f"sweep folder: {sweep.folder}")
    arguments += sweep.arguments()
    try:
        with _stopped_by_signals():
            main()
    except refusals as error:
        sweep.undo()
        plugin = _PLUGIN.search(str(error))
        if plugin is None:
            raise
        name = f"hydra_{plugin.group(1) or plugin.group(2)}"
        extra = "ray" if "ray" in name else "sweeps"
        raise MissingExtraError(f"The package of {name} is not installed", extra) from error
    except KeyboardInterrupt as error:
        sweep.undo()
        sys.exit(128 + (error.number if isinstance(error, _Stopped) else signal.SIGINT))
    except Exception as error:
        # Jobs never raise: this is the launcher, or the sweeper.
        sweep.undo()
        if isinstance(error, UserError):
            raise
        text = " ".join(str(error).split()) or repr(error)
        raise UserError(f"The sweep could not continue: {text}") from error
    finally:
        lines, done = sweep.end()
        if lines:
            say(*lines)
    if not lines:
        sweep.undo()
        raise UserError("The sweep has no run: no setting that was given names a value.")
    if not done:
        sys.exit(1)
