"""Errors that a user can correct.

The commands print their message without a traceback and exit with status 2.
"""

import difflib
import dis
import importlib.util
import json
import re
import signal
from collections.abc import Iterable
from importlib import metadata
from urllib.parse import unquote, urlparse

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAX_TEXT = 500
"""Characters of another program's error that a message repeats."""
_MAX_VALUE = 100
"""Characters of a name that is compared with others."""
_MAX_NAMES = 50
"""Names that a message lists."""


class UserError(ValueError):
    """A value that the user gave and can correct; the message names it, the bound and the fix."""


class MissingExtraError(UserError, ImportError):
    """An optional package is absent; the message names the command that installs it.

    Args:
        what: What is missing.
        extra: The extra of mbrl_flat that has it; without one, ``what`` is the whole message.
    """

    def __init__(self, what: str, extra: str = "") -> None:
        super().__init__(f"{what}; run: {install_command(extra)}." if extra else what)


class EnvironmentFailure(UserError):  # noqa: N818 - what happened, not an error of ours
    """An environment's code raised an error; the message names the environment and the call."""

    @classmethod
    def in_call(cls, name: str, call: str, error: BaseException) -> "EnvironmentFailure":
        """Say what was raised where; see the class."""
        return cls(
            f"Environment {name} failed in {call}(): {shown_error(error)}; correct its code or "
            f"settings (in a command, debug=true shows where)."
        )


class EndedAtStart(SystemExit):
    """A signal asked a run to stop before its first step; its start is taken back."""


def is_ours(error: BaseException) -> bool:
    """Whether an error in an environment's call has its message already, or is a signal's."""
    # All else is the environment's fault, also what is no Exception, such as sys.exit(), and what
    # looks like Ctrl-C where that is noted or ignored, as in a worker, or is raised by a statement.
    by_signal = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ctrl_c = type(error) is KeyboardInterrupt and by_signal and not _is_raised(error)
    return isinstance(error, UserError | EndedAtStart) or ctrl_c


def _is_raised(error: BaseException) -> bool:
    """Whether a ``raise`` statement raised an error, instead of a signal between two statements."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def shown_error(error: BaseException) -> str:
    """Kind and text of an error in one short line, whatever its own code makes of the text."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "its text cannot be shown"
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: object) -> str:
    """Text as one line: control characters, and bytes that are no UTF-8, become escapes."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


class NonFiniteError(FloatingPointError):
    """A loss or gradient is not finite; the message names the modules."""


class DivergedError(ArithmeticError):
    """Training diverged: a loss or gradient is not finite, or the loss beyond its bound.

    Attributes:
        step: The step, counted from 0, at which it was seen.
    """

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"Training diverged at step {step}: {reason}")
        self.step = step


class UnknownNameError(UserError):
    """A name that is in no registry; the message gives the nearest names first.

    Args:
        kind: What the name stands for, such as ``"task"``.
        name: What the user wrote, which may be no text.
        allowed: Every name that would have been accepted.
        where: Optional context, such as ``"env=dmc"``.

    Example:
        >>> UnknownNameError("task", "walker-wlak", ["walker-walk", "dog-run"], where="env=dmc")
        UnknownNameError("Unknown task 'walker-wlak' for env=dmc; did you mean 'walker-walk'?")
    """

    def __init__(self, kind: str, name: object, allowed: Iterable[str], *, where: str = "") -> None:
        names = sorted(set(allowed))
        wanted = str(name)[:_MAX_VALUE]
        nearest = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
        if nearest:
            hint = f"did you mean {' or '.join(map(repr, nearest))}?"
        elif len(names) > _MAX_NAMES:
            nearest = difflib.get_close_matches(wanted, names, n=5, cutoff=0.0)
            hint = f"the nearest of {len(names)} are {', '.join(nearest)}."
        else:
            hint = f"choose one of: {', '.join(names) if names else 'none is registered'}."
        super().__init__(f"Unknown {kind} {name!r}{f' for {where}' if where else ''}; {hint}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str]]:
        return UserError, (str(self),)  # Other processes receive the message alone.


def require_extra(extra: str, *modules: str) -> None:
    """Check that the packages of an extra are installed; a part that needs them calls this first.

    Args:
        extra: Name of the extra, such as ``"train"``.
        modules: What the part imports, such as ``"gymnasium"``.

    Raises:
        MissingExtraError: If one of them is not installed; names all of them and the command.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"This part of mbrl_flat needs {', '.join(missing)}", extra)


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation, from where it was installed.

    Args:
        extra: Name of the extra in ``pip install 'mbrl-flat[NAME]'``, such as ``dmc``.

    Returns:
        ``pip install`` with the clone, archive or repository that pip recorded (PEP 610); with the
        name alone if it came from an index.
    """
    try:
        text = metadata.distribution("mbrl-flat").read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # A clone that is on the path without being installed.
        return f"pip install -e '.[{extra}]' in the clone of mbrl_flat"
    origin = json.loads(text or "{}")
    url = origin.get("url", "")
    if "dir_info" in origin:
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {editable}'{unquote(urlparse(url).path)}[{extra}]'"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}"
    return f"pip install 'mbrl-flat[{extra}]{url and f' @ {url}'}'"


def cause_of(
    error: BaseException | None, kinds: tuple[type[BaseException], ...]
) -> BaseException | None:
    """Find the first of these kinds in an error and what led to it, the newest first."""
    while error is not None:
        if isinstance(error, kinds):
            return error
        error = error.__cause__ or error.__context__
    return None
