"""When things are due, in steps. Every clock can be saved and continues exactly."""

from dataclasses import dataclass


@dataclass
class Every:
    """Due once in each ``interval`` of steps.

    Attributes:
        interval: Steps between two occasions; 0 means never.
        next: First step at which it is due again.

    Example:
        >>> clock = Every(10)
        >>> clock.due(9), clock.due(12)
        (False, True)
        >>> clock.advance(12)
        >>> clock.due(19), clock.due(20)
        (False, True)
    """

    interval: int
    next: int = -1

    def __post_init__(self) -> None:
        if self.next < 0:
            self.next = self.interval

    def due(self, step: int) -> bool:
        """Say whether it is due at ``step``."""
        return self.interval > 0 and step >= self.next

    def advance(self, step: int) -> None:
        """Wait for the first interval that begins after ``step``, if it is due."""
        if self.due(step):
            self.next = (step // self.interval + 1) * self.interval


@dataclass
class UpdateClock:
    """Updates pending for the steps made: an update-to-data ratio without rounding drift.

    Attributes:
        ratio: Updates per step.
        pending: Updates not yet made; a fraction is carried over.

    Example:
        >>> clock = UpdateClock(0.5)
        >>> clock.add_steps(3)
        >>> clock.pop(), clock.pop(), clock.pending
        (True, False, 0.5)
    """

    ratio: float
    pending: float = 0.0

    def add_steps(self, steps: int) -> None:
        """Add the updates of ``steps`` more steps."""
        self.pending += steps * self.ratio

    @property
    def due(self) -> bool:
        """Whether a whole update is pending."""
        # A thousand additions of 0.1 fall short of 100 by 1e-12.
        return self.pending >= 1.0 - 1e-9

    def pop(self) -> bool:
        """Take one update off, if a whole one is pending."""
        if not self.due:
            return False
        self.pending -= 1.0
        return True
