"""Parse what follows a command's name: flags first, then settings, as Hydra expects them."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException

import mbrl_flat.configs
from mbrl_flat.cli.help import EXAMPLES, GROUPS
from mbrl_flat.cli.schemas import SCHEMAS, annotation_of
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runs.resume import resumable_keys
from mbrl_flat.sweeps.command import wants_sweep

CONFIGS = Path(mbrl_flat.configs.__path__[0])
"""The folder of the installed configurations."""

_FLAGS: dict[str, Sequence[str] | None] = {
    **dict.fromkeys(("--hydra-help", "--resolve", "-r", "--run", "-m", "--multirun"), ()),
    **dict.fromkeys(("-sc", "--shell-completion"), ()),
    **dict.fromkeys(("-p", "--package", "-cp", "--config-path", "-cn", "--config-name")),
    **dict.fromkeys(("-cd", "--config-dir", "--experimental-rerun")),
    **dict.fromkeys(("-c", "--cfg"), ("job", "hydra", "all")),
    **dict.fromkeys(
        ("-i", "--info"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    ),
}
"""Flags of Hydra and the values that each takes: none, one of these, or any (None)."""
_FLAGS_OF_EXPORT = ("--format", "--checkpoint", "--rows", "--dtype", "--out")
"""Settings of this command that may be written as flags, too."""
_PATHS = ("run", "run_dir", "out", "resume", "checkpoint", "offline_data", "hydra.sweep.dir")
_HOME = re.compile(r"""(?:^|(?<=[=,\['"]))~[\w.-]*(?=/|['",\]]|$)""")
_VARIABLE = re.compile(r"\$(\w+)")
"""Of the shell; what is written ``${a.b}`` is a setting or a resolver of OmegaConf."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\ud800-\udfff]")
_MOST_RUNS = 100_000
_PARSER = OverridesParser.create()


def parse_arguments(words: Sequence[str], *, command: str, sweeps: bool) -> list[str]:
    """Put flags before settings, where Hydra's parser finds them, and refuse anything else.

    Args:
        words: What the user wrote after the command's name.
        command: ``train``, ``evaluate``, ``probe``, ``export`` or ``supervised``.
        sweeps: Whether it makes many runs by ``-m``.

    Returns:
        The same words, ``~`` and ``$HOME`` in paths expanded.

    Raises:
        UserError: If a word is neither, or changes what a resumed run keeps.
        UnknownNameError: If a flag has no such value.
    """
    flags: list[str] = []
    settings: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name = word.partition("=")[0]
        if _CONTROL.search(word):
            raise UserError(f"{word!r} holds control characters or no UTF-8 text; leave them out.")
        if name in ("-m", "--multirun") and not sweeps:
            raise UserError(
                f"mbrl-flat-{command} looks at one run; leave out {word} and give the command "
                f"once for each."
            )
        if name in _FLAGS:
            value = _value_of_flag(word, left)
            alone = word in ("-i", "--info") and not value
            # Without a value Hydra would take what follows.
            flags += [f"{word}=all" if alone else _home(word), *map(_home, value)]
        elif word.startswith("-"):
            settings.append(_expand_home(_without_dashes(word, left, command=command)))
        elif "=" in word or word.startswith("~"):
            settings.append(_expand_home(word))
        else:
            example = EXAMPLES[command][0][0].split()[0]
            raise UserError(f"{word!r} is no setting: settings are key=value, such as {example}.")
    sweep = wants_sweep(words)
    overrides = [_parse(word) for word in settings]
    for word, override in zip(settings, overrides, strict=True):
        _check_path(word, override)
        _check_setting(word, override, command=command, sweep=sweep)
        _check_switch(word, override, command=command)
    if sweep:
        _check_runs(settings, overrides)
    if not sweep and _is_resumed(overrides):
        tuple(resumable_keys(word for word in settings if not word.startswith("hydra")))
        # The composed optimizer is not that of the run, and may lack the key.
        settings = [f"++{word}" if word.startswith("optimizer.") else word for word in settings]
    return [*flags, *settings]


def _value_of_flag(word: str, left: list[str]) -> list[str]:
    """Take the value of a flag off the words that are left, unless it is in the flag's own."""
    name, equals, value = word.partition("=")
    allowed = _FLAGS[name]
    if allowed is None:
        allowed = [value] if equals else left[:1]
    following = "".join(left[:1])
    may_be_alone = not allowed or (name in ("-i", "--info") and following not in allowed)
    if may_be_alone and not equals:
        return []
    if allowed and (value if equals else following) not in allowed:
        raise UnknownNameError("value", value if equals else following, allowed, where=name)
    return [] if equals else [left.pop(0)]


def _without_dashes(word: str, left: list[str], *, command: str) -> str:
    """Write ``--format onnx`` of the export as the setting ``format=onnx``; refuse other dashes."""
    name, equals, value = word.lstrip("-").partition("=")
    following = "".join(left[:1])
    if command == "export" and word.partition("=")[0] in _FLAGS_OF_EXPORT:
        del left[: 0 if equals else 1]
        return f"{name}={value if equals else following}"
    if not name.replace(".", "").replace("_", "").isalnum():
        raise UserError(f"There is no flag {word}; settings are key=value, without dashes.")
    if not equals and (not following or following.startswith("-") or "=" in following):
        raise UserError(
            f"There is no flag {word}; settings are key=value, without dashes: {name}=VALUE."
        )
    given = word if equals else f"{word} {following}"
    raise UserError(
        f"Settings are key=value, without dashes: {name}={value or following}, not {given}."
    )


def _is_path(key: str) -> bool:
    return key in _PATHS or key.endswith(".folder")


def _expand_home(word: str) -> str:
    """Replace ``~`` and environment variables in the settings that are paths."""
    key, _, value = word.partition("=")
    if key.lstrip("+") == "arm":  # the former name of a group
        return f"{key.removesuffix('arm')}variant={value}"
    if not _is_path(key.lstrip("+")):
        return word
    return _home(f"{key}={os.path.expandvars(value)}".replace("\n", " "))


def _home(word: str) -> str:
    return _HOME.sub(lambda found: os.path.expanduser(found[0]), word)  # noqa: PTH111


def _parse(word: str) -> Override:
    if word.lstrip("+~").startswith("="):
        raise UserError(f"{word!r} names no setting; write key=value.")
    try:
        return _PARSER.parse_override(word)
    except HydraException as error:
        key, _, value = word.partition("=")
        if any(value.count(opened) != value.count(closed) for opened, closed in ("[]", "{}")):
            raise UserError(f"Cannot read {word}: a bracket is missing.") from error
        raise UserError(
            f"Cannot read {word}; quote the value and the whole: \"{key}='{value}'\"."
        ) from error
    except RecursionError as error:
        raise UserError(f"{word[:40]}... is nested too deeply; write it flatter.") from error
    except ValueError as error:
        raise UserError(f"Cannot read {word[:40]}... ({error}); give a smaller number.") from error


def _check_setting(word: str, override: Override, *, command: str, sweep: bool) -> None:
    """Refuse what this command cannot choose, several values without ``-m``, and removals."""
    key = override.key_or_group
    if key.startswith("hydra"):
        return
    if override.is_delete():
        if "." not in key:
            raise UserError(f"{word} removes a setting that is needed; give a value: {key}=VALUE.")
        return
    value = override.value()
    if override.is_sweep_override() and not sweep:
        given = word.partition("=")[2]
        raise UserError(
            f"{word} holds several values: -m makes a run of each, {key}=[{given}] is a list of "
            f"them."
        )
    choices = _choices(key)
    if not choices:
        return
    # A part of the default list is chosen by its place: probe@probes.sharpness=sharpness_full.
    if key not in GROUPS[command] and not override.is_add() and override.package is None:
        raise UserError(f"mbrl-flat-{command} has no {key} to choose; leave it out.")
    named = isinstance(value, str) or override.is_sweep_override()
    if not named:
        raise UserError(f"{word} names none; choose one of: {', '.join(choices)}.")
    if key == "experiment" and value in choices:
        text = (CONFIGS / key / f"{value}.yaml").read_text(encoding="utf-8")
        belongs = "supervised" if "\nstudy:" in text else "train"
        if belongs != command:
            raise UserError(f"{word} is one of mbrl-flat-{belongs}.")


def _check_switch(word: str, override: Override, *, command: str) -> None:
    """Refuse what OmegaConf would turn into true or false, such as 7."""
    key, given = override.key_or_group, _values(override)
    if override.is_delete() or annotation_of(SCHEMAS[command], key) is not bool:
        return
    for value in given:
        # Text is judged by OmegaConf: it may be a reference, or yes.
        if not isinstance(value, bool | str | QuotedString):
            raise UserError(f"{key} must be true or false, got {word.partition('=')[2]}.")


def _check_runs(words: Sequence[str], overrides: Sequence[Override]) -> None:
    """Refuse a sweep that names no run, or more than anybody makes."""
    runs, searched = 1, any(word.startswith("hydra/sweeper=") for word in words)
    for word, override in zip(words, overrides, strict=True):
        values = override.value()
        if isinstance(values, RangeSweep) and not values.step:
            raise UserError(f"{word} has the step 0; give another one.")
        number = sum(1 for _ in islice(_values(override), _MOST_RUNS + 1))
        if number == 0:
            raise UserError(f"{word} names no value, so the sweep has no run; name at least one.")
        runs *= number
        if runs > _MOST_RUNS and not searched:
            raise UserError(
                f"{word} makes this a sweep of more than {_MOST_RUNS:,} runs; split it."
            )


def _values(override: Override) -> Iterable[object]:
    """The values that a word of the command line gives, one or those of a sweep."""
    value = override.value()
    if isinstance(value, RangeSweep) and value.step:
        return value.range()
    if isinstance(value, ChoiceSweep):
        return value.list
    if isinstance(value, Glob):
        return value.filter(_choices(override.key_or_group)) or [value]
    return [value]


def _choices(key: str) -> list[str]:
    """Names of the configurations of a group; none if the key is no group."""
    return sorted(file.stem for file in (CONFIGS / key).glob("*.yaml")) if key else []


def _check_path(word: str, override: Override) -> None:
    """Refuse a path that is empty, is no text, or names a variable that is not set."""
    key = override.key_or_group
    if not _is_path(key) or override.is_delete():
        return
    if variable := _VARIABLE.search(word):
        raise UserError(
            f"{word} names the environment variable {variable[1]}, which is not set; set it, or "
            f"write the path out."
        )
    value, given = override.value(), word.partition("=")[2]
    if isinstance(value, bool | int | float) and str(value) != given:
        raise UserError(f"{word} is a number or a switch; quote it: \"{key}='{given}'\".")
    if _is_blank(value):
        raise UserError(f"{word} is no path; give one: {key}=PATH, or leave {key} out.")


def _is_blank(value: object) -> bool:
    """Whether a path, or one of a list of them, is empty: it would stand for the folder here."""
    if isinstance(value, list):
        return any(map(_is_blank, value))
    return isinstance(value, str | QuotedString) and not str(getattr(value, "text", value)).strip()


def _is_resumed(overrides: Sequence[Override]) -> bool:
    """Whether a run is resumed; then what it keeps is refused before its settings are known."""
    resumed = [override for override in overrides if override.key_or_group == "resume"]
    return bool(resumed) and resumed[-1].value() is not None
