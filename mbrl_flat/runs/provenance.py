"""What a run was made with, as two hashes: of the lock file, and of what is really installed."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mbrl_flat.runtime.files import write_text_atomically

LOCK_VARIABLE = "MBRL_FLAT_LOCK"
"""Environment variable that names the lock file where there is no source tree, as in an image."""


def lock_sha256() -> str | None:
    """SHA-256 of the bytes of ``requirements.lock``; ``None`` where there is no such file."""
    named = os.environ.get(LOCK_VARIABLE)
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def installed_sha256() -> str:
    """SHA-256 of the sorted lines ``name==version`` of all distributions but this one."""
    found = {
        f"{name.lower().replace('_', '-')}=={distribution.version}"
        for distribution in metadata.distributions()
        if (name := distribution.name) and name.lower() not in ("mbrl-flat", "mbrl_flat")
    }
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


_PACKAGES = (
    "mbrl-flat", "torch", "numpy", "gymnasium", "dm-control", "mujoco", "hydra-core", "wandb",
)  # fmt: skip


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, device and host: what a reader needs to judge a number from this run."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    status = _git("status", "--porcelain")
    cuda = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        # An image has no repository inside; whoever builds it says what it was built from.
        "git_revision": _git("rev-parse", "HEAD") or os.environ.get("MBRL_FLAT_REVISION"),
        "git_dirty": None if status is None else bool(status),
        "lock_sha256": lock_sha256(),
        "installed_sha256": installed_sha256(),
        "packages": versions,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "host_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": cuda,
    }


def write_environment(folder: Path, device: torch.device) -> None:
    """Write ``environment.json``."""
    text = json.dumps(describe_environment(device), indent=2)
    write_text_atomically(folder / "environment.json", text + "\n")


def _git(*arguments: str) -> str | None:
    """Ask git about the source tree; ``None`` where there is none."""
    root = Path(__file__).resolve().parent
    # Killed while it refreshes the index, git would leave a lock that stops the user's next commit.
    command = ["git", "--no-optional-locks", *arguments]
    try:
        answer = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
