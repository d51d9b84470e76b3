"""What became of one run of a sweep, as a small file that only its own job writes."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from mbrl_flat.runtime.files import write_text_atomically

Status = Literal["running", "finished", "finished before", "stopped", "failed", "skipped"]


@dataclass(kw_only=True)
class RunOutcome:
    """One run of a sweep.

    Attributes:
        name: Name of its folder.
        status: ``running`` until it is over, also when its job died without a word.
        reason: Why it is not finished, in one line.
        objective: Name of the metric that ``value`` is.
        value: The last value of that metric.
        overrides: The settings that the sweep gave it.
        host: Machine that made it.
        job: Its job on a cluster.
        pid: Process of the run, to look at it or to end it.
    """

    name: str
    status: Status = "running"
    reason: str = ""
    objective: str = ""
    value: float | None = None
    overrides: list[str] = field(default_factory=list)
    host: str = ""
    job: str = ""
    pid: int | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.status in ("finished", "finished before")

    def write(self, folder: Path) -> None:
        """Write or replace the run's file in ``folder``."""
        write_text_atomically(folder / f"{self.name}.json", json.dumps(asdict(self)) + "\n")

    def line(self) -> str:
        """One line for a person."""
        if self.done:
            value = "" if self.value is None else f", {self.objective} {self.value:.4g}"
            return f"{self.name}: {self.status}{value}"
        if self.status == "running":
            return f"{self.name}: did not end; its job was killed or lost"
        return f"{self.name}: {self.status}: {self.reason}"


def read_outcomes(folder: Path) -> list[RunOutcome]:
    """Read what all jobs have written so far, by name."""
    files = sorted(folder.glob("*.json"))
    return [RunOutcome(**json.loads(file.read_text(encoding="utf-8"))) for file in files]


def summary(outcomes: Sequence[RunOutcome]) -> list[str]:
    """How many of each kind, and a line for each that is not done."""
    counts = Counter("not ended" if o.status == "running" else o.status for o in outcomes)
    parts = [f"{count} {status}" for status, count in sorted(counts.items())]
    runs = "1 run" if len(outcomes) == 1 else f"{len(outcomes)} runs"
    missing = [f"  {outcome.line()}" for outcome in outcomes if not outcome.done]
    return [f"{runs}: {', '.join(parts)}", *missing]
