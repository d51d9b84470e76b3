"""Means of metrics between two log lines, and where the time went."""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class MeanMeter:
    """Means over any number of rows, read from the device only when asked for.

    Sums are kept in float64, in the order in which rows came: the mean of a resumed run is that
    of an uninterrupted one, bit for bit.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Add one row of scalars."""
        for name, value in metrics.items():
            scalar = torch.as_tensor(value, dtype=torch.float64).detach()
            known = self._sums.get(name)
            self._sums[name] = scalar.clone() if known is None else known + scalar
            self._counts[name] = self._counts.get(name, 0) + 1

    def pop(self) -> dict[str, float]:
        """Return all means and reset."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts so far."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._sums = dict(state["sums"])
        self._counts = dict(state["counts"])


class Stopwatch:
    """Seconds spent in named parts since the last log line, and steps per second."""

    def __init__(self) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._since = time.perf_counter()
        self._steps = 0

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the body to ``part``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[part] += time.perf_counter() - start

    def add_steps(self, steps: int) -> None:
        """Count steps of the environments."""
        self._steps += steps

    def pop(self) -> dict[str, float]:
        """Return ``time/<part>`` in seconds and ``time/steps_per_second``; reset."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        row = {f"time/{part}": self._spent[part] for part in ("env", "act", "update", "sample")}
        row["time/probe"] = self._spent["probe"]
        row["time/steps_per_second"] = self._steps / elapsed
        self._spent.clear()
        self._since, self._steps = now, 0
        return row


def rss_bytes() -> float:
    """Largest resident size of this process so far, in bytes."""
    # Not getrusage on Linux: what it tells a new process is the size of the one that started it.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * float(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
