"""What a run was made with, as two hashes: of the lock file, and of what is really installed."""

import hashlib
import os
from importlib import metadata
from pathlib import Path

LOCK_VARIABLE = "MBRL_FLAT_LOCK"
"""Environment variable that names the lock file where there is no source tree, as in an image."""


def lock_sha256() -> str | None:
    """SHA-256 of the bytes of ``requirements.lock``; ``None`` where there is no such file."""
    named = os.environ.get(LOCK_VARIABLE)
    path = Path(named) if named else Path(__file__).resolve().parents[1] / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def installed_sha256() -> str:
    """SHA-256 of the sorted lines ``name==version`` of all distributions but this one."""
    found = {
        f"{name.lower().replace('_', '-')}=={distribution.version}"
        for distribution in metadata.distributions()
        if (name := distribution.name) and name.lower() not in ("mbrl-flat", "mbrl_flat")
    }
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()
