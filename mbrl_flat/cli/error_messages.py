"""Turn errors of the libraries into one message: what was given, what is allowed, what to do."""

import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from mbrl_flat.cli.build import describe, wrong_value
from mbrl_flat.cli.schemas import annotation_of
from mbrl_flat.errors import NonFiniteError, UnknownNameError, UserError, cause_of, printable


def _longer(size: int, but: str = "") -> re.Pattern[str]:
    """Values in quotes or brackets and unbroken words of more characters, without those ``but``."""
    return re.compile(
        rf"(?<![^\s=(\[{{:,])(['\"])(?:(?!\1)[^{but}\n]){{{size},}}\1(?![^\s,.;:)\]}}])"
        rf"|\[[^\[\]{but}]{{{size},}}\]|\{{[^{{}}{but}]{{{size},}}\}}|[^\s'\"{but}]{{{size},}}"
    )


_LONG = (_longer(100, "/"), _longer(400))
"""Values that are shortened; those with slashes may be paths."""
_KEPT = 60
"""Characters that are left of such a value."""
_MAX_MESSAGE = 4000


def explain_error(
    error: BaseException, *, command: str, schema: type[Any], known: Callable[[], Iterable[str]]
) -> str:
    """Say what is wrong with a command, in at most 4,000 characters.

    Args:
        error: What it ended in.
        command: The command's name, such as ``train``.
        schema: Dataclass of its settings.
        known: Gives the names of all its settings; asked only where it matters.

    Returns:
        One error message.
    """
    # Text of someone else's file must not steer the terminal.
    text = printable(_explained(error, command, schema, known))
    for long in _LONG:
        text = long.sub(lambda found: f"{found[0][:_KEPT]}...{found[0][-1]}", text)
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}..."


def _explained(
    error: BaseException, command: str, schema: type[Any], known: Callable[[], Iterable[str]]
) -> str:
    if missing := cause_of(error, (MissingConfigException,)):
        group, _, name = str(getattr(missing, "missing_cfg_file", None) or "").rpartition("/")
        options = getattr(missing, "options", None) or []
        return str(UnknownNameError(group or "configuration", name, options))
    if ours := cause_of(error, (UserError, NonFiniteError)):
        return str(ours)
    found = cause_of(error, (OmegaConfBaseException,))
    key = str(getattr(found, "full_key", None) or "")
    if isinstance(found, ConfigAttributeError | ConfigKeyError) and key:
        return _unknown_key(key, command=command, known=set(known()))
    if isinstance(found, ValidationError | ConfigTypeError) and key:
        return _wrong_type(key, found, schema)
    if isinstance(found, InterpolationResolutionError | MissingMandatoryValue) and key:
        return f"{key} has no value, or refers to one that does not exist; give one: {key}=VALUE."
    return format_error(error)


def _unknown_key(key: str, *, command: str, known: set[str]) -> str:
    """Refuse a key, with what stands for it where that has another name."""
    if command == "train" and key.rpartition(".")[2] in ("lr", "learning_rate"):
        return f"Unknown key {key!r}; the world model's learning rate is model_lr."
    if key == "optimizer.rho" and "optimizer.sigma" in known:
        return f"Unknown key {key!r}; this method calls its radius optimizer.sigma."
    if key == "optimizer.rho":
        return (
            f"Unknown key {key!r}: this optimizer has no radius; take one that has, such as "
            f"optimizer=sam. A sweep over methods with radii of their own is "
            f"-m +variant=adam,sam."
        )
    if key.startswith("optimizer."):
        from mbrl_flat.optim.step_options import OPTION_NAMES  # noqa: PLC0415 - needs torch

        if key.partition(".")[2] in OPTION_NAMES:
            return f"Unknown key {key!r}; an option that every method takes is ++{key}=VALUE."
    return str(UnknownNameError("key", key, known))


def _wrong_type(key: str, error: OmegaConfBaseException, schema: type[Any]) -> str:
    if isinstance(error, ConfigTypeError):  # a list where settings belong, or the other way round
        listed = getattr(error, "object_type", None) is list
        return f"{key} must be {describe(list if listed else dict)}."
    return wrong_value(key, getattr(error, "value", None), annotation_of(schema, key))


_MEMORY = re.compile(
    r"allocate|out of memory|overflow|array is too big|maximum.*dimension", re.IGNORECASE
)


def exceeds_memory(error: BaseException) -> bool:
    """Whether an error says that something does not fit into memory."""
    says_so = isinstance(error, RuntimeError | ValueError) and _MEMORY.search(str(error))
    return isinstance(error, MemoryError | OverflowError) or bool(says_so)


def raised_by_configuration(error: BaseException) -> bool:
    """Whether the libraries that read the command line raised an error of Python's own kinds."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = str(frames[-1].f_globals.get("__name__")) if frames else ""
    return module.partition(".")[0] in ("hydra", "omegaconf", "antlr4")


def format_error(error: BaseException) -> str:
    """Put what an error and its cause say into one line."""
    if exceeds_memory(error):
        reason = " ".join(str(error).split()) or "no memory is left"
        if "cannot be converted" in reason or "too large to convert" in reason:
            return f"A number is larger than 32 or 64 bits hold ({reason}); give a smaller one."
        return (
            f"The run does not fit into memory ({reason}); choose smaller sizes, such as a "
            f"smaller batch_size, num_envs or model."
        )
    if isinstance(error, BrokenPipeError):
        return "Nobody reads the output any more; what was saved before is whole."
    if isinstance(error, OSError):
        file = error.filename or "the run folder or the output"
        return f"{error.strerror or error}: {file}; what was saved before is whole."
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    return " ".join(filter(None, lines))
