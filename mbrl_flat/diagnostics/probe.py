"""A diagnostic of an agent, and one on the schedule of a run."""

from collections.abc import Mapping
from typing import Any, Protocol

from mbrl_flat.data.replay import Replay
from mbrl_flat.interfaces import Inspectable


class Probe(Protocol):
    """A diagnostic of an agent and its replay; both are bit-identical afterwards."""

    def __call__(self, agent: Inspectable, replay: Replay) -> Mapping[str, float]:
        """Measure; an empty row where there is nothing to measure on yet."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next measurement depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


class ReplayProbe:
    """A probe on the schedule of a run.

    Args:
        probe: The diagnostic.
        agent: The agent.
        replay: Where it takes its batches.
    """

    def __init__(self, probe: Probe, agent: Inspectable, replay: Replay) -> None:
        self.probe, self.agent, self.replay = probe, agent, replay

    def __call__(self, step: int) -> Mapping[str, float]:
        """Measure."""
        del step
        return self.probe(self.agent, self.replay)

    def state_dict(self) -> dict[str, Any]:
        """The probe's state."""
        return self.probe.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.probe.load_state_dict(state)
