"""Words of a user as part of a file's name."""

import re

_LONGEST = 180


def as_file_name(text: str) -> str:
    """Make a text a file's name that can be typed after ``run=`` without quotes.

    Args:
        text: Any text.

    Returns:
        It with ``-`` for all but letters, digits and ``_.+-``, cut after 180.

    Example:
        >>> as_file_name("module:ALE/Pong-v5")
        'module-ALE-Pong-v5'
    """
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII)[:_LONGEST]
