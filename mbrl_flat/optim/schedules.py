r"""Radii that change during training; any method takes one where it takes a ``rho``.

A schedule is a function of the number of steps made and the learning rate of the parameter group,
so it has no state of its own: the step count and the rates are saved with the optimizer.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from mbrl_flat.errors import UserError
from mbrl_flat.settings import check_number


@runtime_checkable
class Schedule(Protocol):
    """A radius as a function of time."""

    def __call__(self, step: int, lr: float) -> float:
        """Radius after ``step`` steps for a group with learning rate ``lr``; at least 0."""
        ...


Radius = float | Schedule
"""A constant radius or a schedule."""


def radius_at(rho: Radius, step: int, lr: float) -> float:
    """Value of a radius.

    Args:
        rho: A constant or a schedule.
        step: Number of steps made.
        lr: Learning rate of the parameter group.

    Returns:
        The radius.

    Raises:
        UserError: If a schedule gives none, such as a negative number or NaN.
    """
    if not isinstance(rho, Schedule):
        return float(rho)
    value = float(rho(step, lr))
    check_radius(value, name=f"{type(rho).__name__} after {step} steps")
    return value


def check_radius(rho: Any, *, name: str = "rho") -> None:
    """Refuse a constant that is no radius.

    Args:
        rho: What the user gave.
        name: What the user calls it.

    Raises:
        UserError: If it is negative or not a finite number.
    """
    if isinstance(rho, Schedule):
        return
    is_number = isinstance(rho, Real) and not isinstance(rho, bool)
    if not is_number or not 0.0 <= float(rho) < math.inf:
        raise UserError(
            f"{name} must be a number of at least 0 that is finite, got {rho!r}; "
            f"{name}=0 is the base optimizer."
        )


@dataclass(frozen=True, kw_only=True)
class Constant:
    """``value`` at all times."""

    value: float

    def __post_init__(self) -> None:
        check_radius(self.value, name="value")

    def __call__(self, step: int, lr: float) -> float:
        """Return ``value``."""
        del step, lr
        return self.value


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Zero for ``delay`` steps, then a straight line from 0 to ``value`` over ``steps`` steps."""

    value: float
    steps: int
    delay: int = 0

    def __post_init__(self) -> None:
        check_radius(self.value, name="value")
        check_number("steps", self.steps, "[1, inf)")
        check_number("delay", self.delay, "[0, inf)")

    def __call__(self, step: int, lr: float) -> float:
        """``value * clip((step - delay) / steps, 0, 1)``."""
        del lr
        return self.value * min(max(step - self.delay, 0) / self.steps, 1.0)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from ``start`` to ``end`` over ``steps`` steps, then ``end``."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        check_radius(self.start, name="start")
        check_radius(self.end, name="end")
        check_number("steps", self.steps, "[1, inf)")

    def __call__(self, step: int, lr: float) -> float:
        """``end + (start - end) (1 + cos(pi * min(step / steps, 1))) / 2``."""
        del lr
        share = min(step / self.steps, 1.0)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True, kw_only=True)
class FollowsLearningRate:
    r"""A radius that falls with the learning rate, as in GSAM (arXiv:2203.08065).

    .. math::
        \rho_t = \rho_{min} + (\rho_{max} - \rho_{min})
            \frac{\eta_t - \eta_{min}}{\eta_{max} - \eta_{min}}

    held within the two radii, because a warm-up that begins below ``lr_min`` would else make it
    negative.
    """

    rho_max: float
    lr_max: float
    rho_min: float = 0.0
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        check_radius(self.rho_min, name="rho_min")
        if not self.rho_max >= self.rho_min or not self.lr_max > self.lr_min:
            raise UserError(
                f"A radius that follows the learning rate needs rho_max >= rho_min and "
                f"lr_max > lr_min, got rho from {self.rho_min} to {self.rho_max} and lr from "
                f"{self.lr_min} to {self.lr_max}."
            )

    def __call__(self, step: int, lr: float) -> float:
        """Interpolate by ``lr``."""
        del step
        share = (lr - self.lr_min) / (self.lr_max - self.lr_min)
        return self.rho_min + (self.rho_max - self.rho_min) * min(max(share, 0.0), 1.0)
