"""What the errors of others say, in one line."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from mbrl_flat.errors import NonFiniteError, UnknownNameError, UserError, cause_of
from mbrl_flat.runtime.settings import setting_key

_KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
_FULL_KEY = re.compile(r"full_key: (\S+)")
_CONVERSION = re.compile(
    r"Value '(.*)' (?:of type '\w+' could not be converted to|is not a valid) (\w+)", re.DOTALL
)
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '([^=]*)=(.*?)' 1\.")
_NO_LIST = re.compile(r"Invalid value assigned: (\w+) is not a ListConfig")
_NO_GROUP = re.compile(r"Could not override '([^']+)'\. No match in the defaults list")
_NO_ARGUMENT = re.compile(r"got an unexpected keyword argument '([^']+)'")
_LETTERS = re.compile(r"LexerNoViableAltException: ([^=]*)=(.*?)\s*\^")


def explain_error(
    error: BaseException, *, command: str, words: Sequence[str], known: Callable[[], Iterable[str]]
) -> str:
    """Say what is wrong with a command.

    Args:
        error: What it ended in.
        command: The command's name, such as ``train``.
        words: What was written after it.
        known: Gives the names of all its settings; asked only where it matters.

    Returns:
        One error message.
    """
    if ours := cause_of(error, (UserError, NonFiniteError)):
        return str(ours)
    if file := getattr(error, "missing_cfg_file", None):
        group, _, name = str(file).rpartition("/")
        return str(UnknownNameError(group, name, getattr(error, "options", None) or []))
    if said := wrong_command(error, command=command, words=words):
        return said
    if key := unknown_key(error):
        return _unknown(key, command=command, known=set(known()))
    return format_error(error)


def _unknown(key: str, *, command: str, known: set[str]) -> str:
    """Refuse a key, with what stands for it where that has another name."""
    above, _, last = key.rpartition(".")
    if command == "train" and last in ("lr", "learning_rate"):
        return f"Unknown key {key!r}; the world model's learning rate is model_lr."
    if key == "optimizer.rho" and f"{above}.sigma" in known:
        return f"Unknown key {key!r}; this method calls its radius {above}.sigma."
    if key == "optimizer.rho":
        return (
            f"Unknown key {key!r}: this optimizer has no radius; take one that has, such as "
            f"optimizer=sam. A sweep over methods with radii of their own is -m +variant=adam,sam."
        )
    return str(UnknownNameError("key", key, known))


def format_error(error: BaseException) -> str:
    """Put what an error and its cause say into one line."""
    if isinstance(error, BrokenPipeError):
        return "Nobody reads the output any more; what was saved before is whole."
    if isinstance(error, OSError):
        file = error.filename or "the run folder"
        return f"{error.strerror or error}: {file}; what was saved before is whole."
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    text = " ".join(filter(None, lines))
    if unread := _unread(error, text):
        return unread
    found, key = _CONVERSION.search(text), _FULL_KEY.search(text)
    if key and _NO_LIST.search(text):
        return f"{key.group(1)} must be a list, such as {key.group(1)}=[a,b]."
    if found and key:
        wanted = _KINDS.get(found.group(2), found.group(2))
        return f"{key.group(1)} must be {wanted}, got {found.group(1)!r}."
    return text


def _unread(error: BaseException, text: str) -> str | None:
    """Why a word is no ``key=value``, if that is the error."""
    if several := _AMBIGUOUS.search(text):
        key, value = several.groups()
        return (
            f"{key}={value} holds several values: -m makes a run of each, {key}=[{value}] is a "
            f"list of them."
        )
    word = str(getattr(error, "override", None) or "")
    letters = _LETTERS.search(text) or re.fullmatch("([^=]*)=(.*)", word)
    if not letters:
        return None
    key, value = letters.groups()
    if any(value.count(opened) != value.count(closed) for opened, closed in ("[]", "{}")):
        return f"Cannot read {key}={value}: a bracket is missing."
    return f"Cannot read {key}={value}; quote the value and the whole: \"{key}='{value}'\"."


def format_part_error(error: Exception) -> str:
    """Say why a part cannot be built, and which."""
    where = _FULL_KEY.search(str(error))
    place = f" (at {where.group(1)})" if where else ""
    return f"{str(error.__cause__ or error).splitlines()[0]}{place}"


def unknown_key(error: BaseException) -> str | None:
    """The key that an error says there is not, by its full name."""
    text = f"{error} {error.__cause__}"
    key, full = re.search(r"[Kk]ey '([^']+)'", text), _FULL_KEY.search(text)
    return (full or key).group(1) if key else None


def wrong_command(error: BaseException, *, command: str, words: Sequence[str]) -> str | None:
    """Say that a word of another command of the package was given, if that is the error.

    Args:
        error: What composing the configuration ended in.
        command: The command's name, such as ``train``.
        words: What was written after it.

    Returns:
        The reason.
    """
    text = f"{error} {error.__cause__ or ''}"
    experiment = next((word for word in words if word.startswith("experiment=")), None)
    if command == "train" and experiment and unknown_key(error) == "study":
        return f"{experiment} is one of mbrl-flat-supervised."
    if command == "train" or not (group := _NO_GROUP.search(text)):
        return None
    if experiment and "In 'experiment/" in text:
        return f"{experiment} is one of mbrl-flat-train."
    return f"mbrl-flat-{command} has no {group[1]} to choose; leave it out."


@contextmanager
def additions_refused(
    words: Sequence[str], *, known: Callable[[], Iterable[str]]
) -> Iterator[None]:
    """Refuse settings added by ``+key=value`` that a part turns out not to take.

    Args:
        words: What was written after the command.
        known: Gives the names of all settings.

    Raises:
        UnknownNameError: In place of the error of the call.
        Exception: Any other.
    """
    try:
        yield
    except Exception as error:
        argument = _NO_ARGUMENT.search(str(cause_of(error, (TypeError,))))
        keys = [setting_key(word) for word in words if word.startswith("+")]
        for key in keys:
            if argument and key.rpartition(".")[2] == argument[1]:
                raise UnknownNameError("key", key, known()) from error
        raise
