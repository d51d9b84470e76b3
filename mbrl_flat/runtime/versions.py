"""Versions as every command prints them."""

import platform
from importlib.metadata import PackageNotFoundError, version


def version_line() -> str:
    """The line of ``--version``; imports neither torch nor anything else of weight."""
    ours, torch = version_of("mbrl-flat"), version_of("torch")
    return f"mbrl-flat {ours} (Python {platform.python_version()}, torch {torch})"


def version_of(package: str) -> str:
    """Version of an installed package; ``unknown`` where it is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
