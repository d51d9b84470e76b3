"""The words of a command, checked and put as Hydra takes them: its flags first."""

from collections.abc import Sequence

from mbrl_flat.errors import UserError
from mbrl_flat.logging.labels import setting_key
from mbrl_flat.saved_run import resumable_keys

_FLAGS = {
    "-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run", "-m", "--multirun",
    "-sc", "--shell-completion", "-i", "--info",
}  # fmt: skip
_FLAGS_WITH_A_VALUE = {
    "-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name",
    "-cd", "--config-dir", "--experimental-rerun",
}  # fmt: skip
_EXAMPLES = {
    "train": "seed=1",
    "evaluate": "run=runs/NAME",
    "probe": "run=runs/NAME",
    "supervised": "experiment=label_noise",
}


def arranged(words: Sequence[str], *, command: str, sweeps: bool) -> list[str]:
    """Put flags before settings, where Hydra's parser finds them, and refuse anything else.

    Args:
        words: What the user wrote after the command's name.
        command: ``train``, ``evaluate``, ``probe`` or ``supervised``.
        sweeps: Whether it makes many runs by ``-m``.

    Returns:
        The same words.

    Raises:
        UserError: If a word is neither, or changes what a resumed run keeps.
    """
    flags: list[str] = []
    settings: list[str] = []
    rest = iter(words)
    for word in rest:
        name = word.partition("=")[0]
        if name in ("-m", "--multirun") and not sweeps:
            raise UserError(
                f"mbrl-flat-{command} looks at one run; leave out {word} and give the command "
                f"once for each."
            )
        if name in _FLAGS:
            flags.append(word)
        elif name in _FLAGS_WITH_A_VALUE:
            value = [] if "=" in word else [next(rest, "")]
            flags += [word, *value]
        elif word.startswith("-"):
            raise UserError(_dashes(word, next(rest, "")))
        elif "=" in word or word.startswith("~"):
            settings.append(word)
        else:
            raise UserError(
                f"{word!r} is no setting: settings are key=value, such as {_EXAMPLES[command]}."
            )
    resumed = [word for word in settings if setting_key(word) == "resume"]
    if resumed and resumed[-1].partition("=")[2] not in ("", "null"):
        tuple(resumable_keys(word for word in settings if not word.startswith("hydra")))
    return [*flags, *settings]


def _dashes(word: str, following: str) -> str:
    """What to write instead of a word with dashes."""
    name, equals, value = word.lstrip("-").partition("=")
    if not name.replace(".", "").replace("_", "").isalnum():
        return f"There is no flag {word}; settings are key=value, without dashes."
    if not equals and (not following or following.startswith("-") or "=" in following):
        return f"There is no flag {word}; settings are key=value, without dashes: {name}=VALUE."
    given = word if equals else f"{word} {following}"
    return f"Settings are key=value, without dashes: {name}={value or following}, not {given}."
