"""What a probe is: on the schedule of a run, or applied to a saved run on request."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mbrl_flat.data.episode import Episode
from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Inspectable
from mbrl_flat.settings import CheckedSettings, setting


class NothingToMeasure(UserError):  # noqa: N818 - a reason, not an error of anybody
    """A probe finds nothing that it could measure on; the message says what is missing."""


class Probe(Protocol):
    """A diagnostic of an agent and its replay; both are bit-identical afterwards."""

    def __call__(self, agent: Inspectable, replay: Replay) -> Mapping[str, float]:
        """Measure.

        Raises:
            NothingToMeasure: If the replay or the agent lacks what is measured.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next measurement depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


@dataclass(eq=False, repr=False)
class SeededProbe(CheckedSettings):
    """Base of a probe that draws its batches from a stream of its own, ``rng``.

    Attributes:
        seed: Where the stream begins.
    """

    seed: int = setting(0, "[0, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rng = np.random.default_rng(self.seed)

    def state_dict(self) -> dict[str, Any]:
        """The stream."""
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.rng.bit_generator.state = state["rng"]


class Play(Protocol):
    """Plays whole episodes of a saved run's agent, always with the same seeds."""

    def __call__(
        self, mode: Any, *, wrap: Callable[[Any], Any] | None = None, agent: Any = None
    ) -> list[Episode]:
        """Play in a mode, in environments that ``wrap`` changes, or with another actor."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProbedRun:
    """A saved run.

    Attributes:
        agent: The agent of the newest checkpoint.
        replay: Its replay.
        play: Plays whole episodes.
        folder: Where files may be written.
        step: Step of the checkpoint.
        seed: Determines batches and episodes.
    """

    agent: Any
    replay: Replay
    play: Play
    folder: Path
    step: int
    seed: int


@runtime_checkable
class RunProbe(Protocol):
    """A diagnostic of a saved run that needs more than its replay."""

    def measure_run(self, run: ProbedRun) -> Mapping[str, float]:
        """Measure.

        Raises:
            NothingToMeasure: If the run lacks what is measured.
        """
        ...


class ReplayProbe:
    """A probe on the schedule of a run; a reason for measuring nothing is printed once.

    Args:
        probe: The diagnostic.
        agent: The agent.
        replay: Where it takes its batches.
    """

    def __init__(self, probe: Probe, agent: Inspectable, replay: Replay) -> None:
        self.probe, self.agent, self.replay = probe, agent, replay
        self._reasons: set[str] = set()

    def __call__(self, step: int) -> Mapping[str, float]:
        """Measure; an empty row where there is nothing to measure on."""
        try:
            return self.probe(self.agent, self.replay)
        except NothingToMeasure as reason:
            if str(reason) not in self._reasons:
                self._reasons.add(str(reason))
                name = type(self.probe).__name__
                sys.stderr.write(f"{name} measured nothing at step {step}: {reason}\n")
            return {}

    def state_dict(self) -> dict[str, Any]:
        """The probe's state."""
        return self.probe.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.probe.load_state_dict(state)
