"""What the errors of others say, in one sentence."""

import re

_KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
_FULL_KEY = re.compile(r"full_key: (\S+)")
_CONVERSION = re.compile(
    r"Value '(.*)' (?:of type '\w+' could not be converted to|is not a valid) (\w+)", re.DOTALL
)
_LETTERS = re.compile(r"LexerNoViableAltException: ([^=]*)=(.*?)\s*\^")


def sentence_of(error: BaseException) -> str:
    """Put what an error and its cause say into one line."""
    if isinstance(error, OSError):
        file = error.filename or "the run folder"
        return f"{error.strerror or error}: {file}; what was saved before is whole."
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    text = " ".join(filter(None, lines))
    if letters := _LETTERS.search(text):
        key, value = letters.groups()
        return f"Cannot read {key}={value}; quote the value and the whole: \"{key}='{value}'\"."
    found, key = _CONVERSION.search(text), _FULL_KEY.search(text)
    if found and key:
        wanted = _KINDS.get(found.group(2), found.group(2))
        return f"{key.group(1)} must be {wanted}, got {found.group(1)!r}."
    return text


def sentence_of_part(error: Exception) -> str:
    """Say why a part cannot be built, and which."""
    where = _FULL_KEY.search(str(error))
    place = f" (at {where.group(1)})" if where else ""
    return f"{str(error.__cause__ or error).splitlines()[0]}{place}"


def unknown_key(error: BaseException) -> str | None:
    """The key that an error says there is not, by its full name."""
    text = f"{error} {error.__cause__}"
    key, full = re.search(r"[Kk]ey '([^']+)'", text), _FULL_KEY.search(text)
    return (full or key).group(1) if key else None
