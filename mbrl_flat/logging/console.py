"""What a person sees during a run: one progress bar and a line for each evaluation.

The bar goes to stderr, lines go to stdout, so that ``> log.txt`` keeps the lines alone. Where
stdout is no terminal there is no bar, and every row of training metrics gets a line as well.
"""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

from mbrl_flat.errors import printable

_WIDTH = 10
_SECONDS_BETWEEN_LINES = 10.0
_OPTIONAL_COLUMNS = (
    ("random", "eval/random_return_mean"),
    ("value err", "probe/value/rmse_normalised"),
    ("SAM gap", "probe/sharpness/sam_gap"),
)
_HEADER = f"{'step':>11} {'frame':>11} {'return':>17} " + " ".join(
    title.rjust(_WIDTH) for title, _ in _OPTIONAL_COLUMNS
)


class ConsoleLogger:
    """A progress bar and a table that grows by one row with each evaluation.

    Args:
        total_steps: Length of the run in steps.
        updates_per_step: Updates per step, from which the time that is left is told.
        description: What stands in front of the bar, such as the run's name.
        progress: Whether a bar is wanted at all.
        lines: Where the table goes; standard output unless given.
        bar: Where the bar goes; standard error unless given.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        updates_per_step: float = 1.0,
        description: str = "",
        progress: bool = True,
        lines: TextIO | None = None,
        bar: TextIO | None = None,
    ) -> None:
        self._lines, self._total = lines or sys.stdout, total_steps
        stream = bar or sys.stderr
        self.interactive = progress and self._lines.isatty() and stream.isatty()
        self._bar = tqdm(
            total=total_steps,
            desc=description or None,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
            file=stream,
            disable=not self.interactive,
            leave=False,
        )
        self._seen: dict[str, float] = {}
        self._at = (0, 0)
        self._has_header = False
        self._has_started = False
        self._step = 0
        self._burst: tuple[float, int, float] | None = None
        self._updates_per_step = updates_per_step

    def advance(self, step: int) -> None:
        """Move the bar; cheap enough to be called at every step."""
        self._step = step
        if step != self._at[0]:
            self._write_evaluation()
        if not self.interactive:
            return
        if not self._has_started:
            # Steps of before a resume must not count as speed.
            self._bar.initial = self._bar.n = step
            self._has_started = True
        self._bar.update(step - self._bar.n)

    def learn(self, updates: int, pending: float) -> None:
        """Tell of updates that are made without a step between them.

        Args:
            updates: Made so far.
            pending: Still to be made at this step.
        """
        now = time.monotonic()
        if pending < 1.0:
            self._burst = None
            return
        if self._burst is None:
            self._burst = (now, updates, now)
            return
        start, first, told = self._burst
        if now - told < _SECONDS_BETWEEN_LINES:
            return
        self._burst = (start, first, now)
        an_update = (now - start) / (updates - first)
        later = (self._total - self._step) * self._updates_per_step
        text = f"{updates:,} of {updates + pending:,.0f} updates"
        # Evaluations and actions come on top, of which nothing is known yet.
        run = f"at least {duration((pending + later) * an_update)} for the run"
        if self.interactive:
            self._bar.set_postfix_str(f"{text}, {run}")
        else:
            left = f"about {duration(pending * an_update)} left at this step"
            self._line(f"step {self._step:,}, {text}, {left}, {run}")

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Move the bar; an evaluation and the probes of its step become a line of the table."""
        self.advance(step)
        self._at = (step, frame)
        self._seen |= metrics
        if not self.interactive and "time/steps_per_second" in metrics:
            self._line(_training_line(metrics, step, frame, self._total))

    def close(self) -> None:
        """Remove the bar."""
        self._write_evaluation()
        self._bar.close()

    def _write_evaluation(self) -> None:
        """Write the line of the last step that had rows, if it was evaluated."""
        seen, (step, frame) = self._seen, self._at
        self._seen = {}
        if "eval/return_mean" not in seen:
            return
        if not self._has_header:
            self._line(_HEADER)
            self._has_header = True
        mean, std = seen["eval/return_mean"], seen.get("eval/return_std", math.nan)
        cells = [f"{step:>11,} {frame:>11,} {mean:>9.1f} +-{std:>5.1f}"]
        cells += [_cell(seen.get(name)) for _, name in _OPTIONAL_COLUMNS]
        self._line(" ".join(cells))
        if self.interactive:
            self._bar.set_postfix({"return": f"{mean:.1f}"})

    def _line(self, text: str) -> None:
        tqdm.write(text, file=self._lines)
        self._lines.flush()


def _training_line(metrics: Mapping[str, float], step: int, frame: int, total: int) -> str:
    parts = [f"step {step:,}", f"frame {frame:,}"]
    for name, label in (("train/total_loss", "loss"), ("episode/return", "episode return")):
        if name in metrics:
            parts.append(f"{label} {metrics[name]:.4g}")
    rate = metrics["time/steps_per_second"]
    parts.append(f"{rate:.1f} steps/s")
    if rate > 0.0 and "train/total_loss" in metrics and total > step:
        parts.append(f"about {duration((total - step) / rate)} left")
    return ", ".join(parts)


def _cell(value: float | None) -> str:
    """Write a value, or a dash for one that was not measured at this step."""
    return "-".rjust(_WIDTH) if value is None else f"{value:>{_WIDTH}.4g}"


def progress_bar(total: int, description: str, *, wanted: bool = True) -> "tqdm[Any]":
    """A bar of ``total`` steps on stderr that disappears; nothing where that is no terminal."""
    return tqdm(
        total=total,
        desc=description,
        unit="step",
        dynamic_ncols=True,
        leave=False,
        disable=not (wanted and sys.stderr.isatty()),
    )


def duration(seconds: float) -> str:
    """A time in words, such as ``14 minutes``."""
    for unit, size in (("hours", 5400.0), ("minutes", 90.0)):
        if seconds >= size:
            return f"{seconds / (3600.0 if unit == 'hours' else 60.0):.0f} {unit}"
    return f"{seconds:.0f} seconds"


def say(*lines: object) -> None:
    """Print lines at once, also into a pipe; names in them may hold any character."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()
