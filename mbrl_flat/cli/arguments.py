"""Parse what follows a command's name: flags first, then settings, as Hydra expects them."""

import re
from collections.abc import Sequence

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runs.resume import resumable_keys
from mbrl_flat.runtime.settings import setting_key
from mbrl_flat.sweeps import wants_sweep

_FLAGS = {
    "-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run", "-m", "--multirun",
    "-sc", "--shell-completion",
}  # fmt: skip
_FLAGS_WITH_A_VALUE = {
    "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun",
}  # fmt: skip
_FORMER_GROUP = re.compile(r"^(\+{0,2})arm=")
"""The group of configurations that is called ``variant`` today."""
_SHOWN = ("job", "hydra", "all")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FLAGS_WITH_A_CHOICE = {"-c": _SHOWN, "--cfg": _SHOWN, "-i": _INFO, "--info": _INFO}
_EXAMPLES = {
    "train": "seed=1",
    "evaluate": "run=runs/NAME",
    "probe": "run=runs/NAME",
    "supervised": "experiment=label_noise",
}


def parse_arguments(words: Sequence[str], *, command: str, sweeps: bool) -> list[str]:
    """Put flags before settings, where Hydra's parser finds them, and refuse anything else.

    Args:
        words: What the user wrote after the command's name.
        command: ``train``, ``evaluate``, ``probe`` or ``supervised``.
        sweeps: Whether it makes many runs by ``-m``.

    Returns:
        The same words.

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
            settings.append(_FORMER_GROUP.sub(r"\1variant=", word))
        else:
            raise UserError(
                f"{word!r} is no setting: settings are key=value, such as {_EXAMPLES[command]}."
            )
    if not wants_sweep(words):
        _check_resumed(settings)
    return [*flags, *settings]


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


def _check_resumed(settings: Sequence[str]) -> None:
    """Refuse what a resumed run keeps, before it is looked for in settings that are not its own."""
    resumed = [word for word in settings if setting_key(word) == "resume"]
    if resumed and resumed[-1].partition("=")[2] not in ("", "null"):
        tuple(resumable_keys(word for word in settings if not word.startswith("hydra")))


def _dashes(word: str, following: str) -> str:
    """What to write instead of a word with dashes."""
    name, equals, value = word.lstrip("-").partition("=")
    if not name.replace(".", "").replace("_", "").isalnum():
        return f"There is no flag {word}; settings are key=value, without dashes."
    if not equals and (not following or following.startswith("-") or "=" in following):
        return f"There is no flag {word}; settings are key=value, without dashes: {name}=VALUE."
    given = word if equals else f"{word} {following}"
    return f"Settings are key=value, without dashes: {name}={value or following}, not {given}."
