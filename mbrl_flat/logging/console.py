"""What a person sees during a run: one progress bar and a line for each evaluation.

The bar goes to stderr, lines go to stdout, so that ``> log.txt`` keeps the lines alone. Where
stdout is no terminal there is no bar, and every row of training metrics gets a line as well.
"""

import math
import sys
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm

_WIDTH = 10
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
        description: What stands in front of the bar, such as the run's name.
        progress: Whether a bar is wanted at all.
        lines: Where the table goes; standard output unless given.
        bar: Where the bar goes; standard error unless given.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        description: str = "",
        progress: bool = True,
        lines: TextIO | None = None,
        bar: TextIO | None = None,
    ) -> None:
        self._lines = lines or sys.stdout
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

    def advance(self, step: int) -> None:
        """Move the bar; cheap enough to be called at every step."""
        if step != self._at[0]:
            self._write_evaluation()
        if not self.interactive:
            return
        if not self._has_started:
            # Steps of before a resume must not count as speed.
            self._bar.initial = self._bar.n = step
            self._has_started = True
        self._bar.update(step - self._bar.n)

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Move the bar; an evaluation and the probes of its step become a line of the table."""
        self.advance(step)
        self._at = (step, frame)
        self._seen |= metrics
        if not self.interactive and "time/steps_per_second" in metrics:
            self._line(_training_line(metrics, step, frame))

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


def _training_line(metrics: Mapping[str, float], step: int, frame: int) -> str:
    parts = [f"step {step:,}", f"frame {frame:,}"]
    for name, label in (("train/total_loss", "loss"), ("episode/return", "episode return")):
        if name in metrics:
            parts.append(f"{label} {metrics[name]:.4g}")
    parts.append(f"{metrics['time/steps_per_second']:.1f} steps/s")
    return ", ".join(parts)


def _cell(value: float | None) -> str:
    """Write a value, or a dash for one that was not measured at this step."""
    return "-".rjust(_WIDTH) if value is None else f"{value:>{_WIDTH}.4g}"


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
