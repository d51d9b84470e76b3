"""What a user can get wrong, said in one sentence.

``cli.py`` prints the sentence of these errors without a traceback and exits with status 2.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A value that the user gave and can correct; the message names it, the bound and the fix."""


class MissingExtraError(UserError, ImportError):
    """An optional package is absent; the message names the extra that installs it."""


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


def unknown_name(kind: str, name: str, allowed: Iterable[str], *, where: str = "") -> UserError:
    """Build the error for a name that is in no registry, the nearest names first.

    Args:
        kind: What the name stands for, such as ``"task"``.
        name: What the user wrote.
        allowed: Every name that would have been accepted.
        where: Optional context, such as ``"env=dmc"``.

    Returns:
        The error, ready to be raised.

    Example:
        >>> unknown_name("task", "walker-wlak", ["walker-walk", "dog-run"], where="env=dmc")
        UserError("Unknown task 'walker-wlak' for env=dmc; did you mean 'walker-walk'?")
    """
    names = sorted(allowed)
    context = f" for {where}" if where else ""
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if nearest:
        choices = " or ".join(repr(match) for match in nearest)
        return UserError(f"Unknown {kind} {name!r}{context}; did you mean {choices}?")
    listed = ", ".join(names) if names else "none is registered"
    return UserError(f"Unknown {kind} {name!r}{context}; choose one of: {listed}.")


def cause_of(
    error: BaseException | None, kinds: tuple[type[BaseException], ...]
) -> BaseException | None:
    """Find the first of these kinds in an error and what led to it, the newest first."""
    while error is not None:
        if isinstance(error, kinds):
            return error
        error = error.__cause__ or error.__context__
    return None
