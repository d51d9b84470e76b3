"""Functions of a caller that a run calls: after its steps, and with its evaluations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mbrl_flat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions to call during a run; a logger that passes evaluations on.

    Attributes:
        on_step: Called with the number of steps made, whenever it changes.
        on_evaluation: Called with the step and the metrics of every evaluation.
    """

    on_step: Callable[[int], None] | None = None
    on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not callable(value):
                raise UserError(f"{name} must be a function, got {value!r}.")

    def after(self, first: Callable[[int], object]) -> Callable[[int], object]:
        """A function of the step that calls ``first`` and then ``on_step``."""
        then = self.on_step
        if then is None:
            return first

        def both(step: int) -> None:
            first(step)
            then(step)

        return both

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Pass a row on if it is an evaluation."""
        del frame
        if self.on_evaluation is not None and "eval/return_mean" in metrics:
            self.on_evaluation(step, dict(metrics))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
