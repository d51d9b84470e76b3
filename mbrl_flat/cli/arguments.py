"""Parse what follows a command's name: flags first, then settings, as Hydra expects them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

import mbrl_flat.configs
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runs.resume import resumable_keys
from mbrl_flat.runtime.settings import setting_key
from mbrl_flat.sweeps.command import wants_sweep

CONFIGS = Path(mbrl_flat.configs.__path__[0])
"""The folder of the installed configurations."""

GROUPS = {
    "train": (
        "agent",
        "env",
        "optimizer",
        "optimizer/base",
        "preset",
        "sizes",
        "benchmark",
        "experiment",
        "schedule",
    ),
    "evaluate": ("agent", "env"),
    "probe": ("probe",),
    "export": (),
    "supervised": ("experiment", "preset"),
}
"""What each command chooses from."""

_FLAGS = {
    "--hydra-help", "--resolve", "-r", "--run", "-m", "--multirun", "-sc", "--shell-completion",
}  # fmt: skip
_FLAGS_WITH_A_VALUE = {
    "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun",
}  # fmt: skip
_SHOWN = ("job", "hydra", "all")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FLAGS_OF_EXPORT = re.compile(r"--(format|checkpoint|rows|dtype|out)(?:=(.*))?", re.DOTALL)
"""Settings of this command that may be written as flags, too."""
_FLAGS_WITH_A_CHOICE = {"-c": _SHOWN, "--cfg": _SHOWN, "-i": _INFO, "--info": _INFO}
_EXAMPLES = {
    "train": "seed=1",
    "evaluate": "run=runs/NAME",
    "probe": "run=runs/NAME",
    "export": "run=runs/NAME",
    "supervised": "experiment=label_noise",
}
_FORMER_GROUP = re.compile(r"^(\+{0,2})arm=")
"""The group of configurations that is called ``variant`` today."""
_PATHS = re.compile(
    r"\+{0,2}(run|run_dir|out|resume|checkpoint|offline_data|hydra\.sweep\.dir|.*\.folder)="
)
_HOME = re.compile(r"""(?<=[=,\['"])~[\w.-]*(?=/|['",\]]|$)""")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f]")
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
    left = _without_control(words)
    left = _without_dashes(left) if command == "export" else left
    while left:
        word = left.pop(0)
        name = word.partition("=")[0]
        if name in ("-m", "--multirun") and not sweeps:
            raise UserError(
                f"mbrl-flat-{command} looks at one run; leave out {word} and give the command "
                f"once for each."
            )
        if name in _FLAGS:
            flags.append(word)
        elif name in _FLAGS_WITH_A_CHOICE:
            flags += [word, *_choice(word, left)]
        elif name in _FLAGS_WITH_A_VALUE:
            flags += [word, *([] if "=" in word else left[:1])]
            left = left if "=" in word else left[1:]
        elif word.startswith("-"):
            raise UserError(_dashes(word, "".join(left[:1])))
        elif "=" in word or word.startswith("~"):
            settings.append(_expand_home(_FORMER_GROUP.sub(r"\1variant=", word)))
        else:
            raise UserError(
                f"{word!r} is no setting: settings are key=value, such as {_EXAMPLES[command]}."
            )
    sweep = wants_sweep(words)
    for word in settings:
        override = _parse(word)
        _check_path(word, override)
        _check_setting(word, override, command=command, sweep=sweep)
    if not sweep and _check_resumed(settings):
        # The composed optimizer is not that of the run, and may lack the key.
        settings = [f"++{word}" if word.startswith("optimizer.") else word for word in settings]
    return [*flags, *settings]


def _without_control(words: Sequence[str]) -> list[str]:
    """Refuse words with line breaks and the like, which no message could show."""
    for word in words:
        if _CONTROL.search(word):
            raise UserError(f"{word!r} holds control characters; leave them out.")
    return list(words)


def _without_dashes(words: Sequence[str]) -> list[str]:
    """Write ``--format onnx`` and ``--format=onnx`` as the setting ``format=onnx``."""
    left, found = list(words), []
    while left:
        word = left.pop(0)
        flag = _FLAGS_OF_EXPORT.fullmatch(word)
        if flag is None:
            found.append(word)
        else:
            value = flag[2] if flag[2] is not None or not left else left.pop(0)
            found.append(f"{flag[1]}={value or ''}")
    return found


def _expand_home(word: str) -> str:
    """Replace ``~`` and environment variables in the settings that are paths."""
    if not _PATHS.match(word):
        return word
    key, _, value = word.partition("=")
    value = os.path.expandvars(value).replace("\n", " ")
    return _HOME.sub(lambda found: os.path.expanduser(found[0]), f"{key}={value}")  # noqa: PTH111


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
    choices = sorted(file.stem for file in (CONFIGS / key).glob("*.yaml")) if key else []
    if not choices:
        return
    if key not in GROUPS[command] and not override.is_add():
        raise UserError(f"mbrl-flat-{command} has no {key} to choose; leave it out.")
    named = isinstance(value, str) or override.is_sweep_override()
    if not named:
        raise UserError(f"{word} names none; choose one of: {', '.join(choices)}.")
    if key == "experiment" and value in choices:
        text = (CONFIGS / key / f"{value}.yaml").read_text(encoding="utf-8")
        belongs = "supervised" if "\nstudy:" in text else "train"
        if belongs != command:
            raise UserError(f"{word} is one of mbrl-flat-{belongs}.")


def _check_path(word: str, override: Override) -> None:
    """Refuse an empty path."""
    key = override.key_or_group
    if _PATHS.match(word) and _is_blank(override.value()):
        raise UserError(f"{word} is no path; give one: {key}=PATH, or leave {key} out.")


def _is_blank(value: object) -> bool:
    """Whether a path, or one of a list of them, is empty: it would stand for the folder here."""
    if isinstance(value, list):
        return any(map(_is_blank, value))
    return isinstance(value, str | QuotedString) and not str(getattr(value, "text", value)).strip()


def _choice(word: str, left: list[str]) -> list[str]:
    """Take the value of a flag off the words that are left, unless it is in the flag's own."""
    name, equals, value = word.partition("=")
    choices = _FLAGS_WITH_A_CHOICE[name]
    if not equals and choices is _INFO and (not left or left[0] not in _INFO):
        return []
    if not equals:
        value = left.pop(0) if left else ""
    if value not in choices:
        raise UnknownNameError("value", value, choices, where=name)
    return [] if equals else [value]


def _check_resumed(settings: Sequence[str]) -> bool:
    """Refuse what a resumed run keeps, before it is looked for in settings that are not its own.

    Returns:
        Whether a run is resumed.
    """
    resumed = [word for word in settings if setting_key(word) == "resume"]
    if not resumed or resumed[-1].partition("=")[2] == "null":
        return False
    tuple(resumable_keys(word for word in settings if not word.startswith("hydra")))
    return True


def _dashes(word: str, following: str) -> str:
    """What to write instead of a word with dashes."""
    name, equals, value = word.lstrip("-").partition("=")
    if not name.replace(".", "").replace("_", "").isalnum():
        return f"There is no flag {word}; settings are key=value, without dashes."
    if not equals and (not following or following.startswith("-") or "=" in following):
        return f"There is no flag {word}; settings are key=value, without dashes: {name}=VALUE."
    given = word if equals else f"{word} {following}"
    return f"Settings are key=value, without dashes: {name}={value or following}, not {given}."
