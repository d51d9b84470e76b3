"""A sweep of radii: every method at every radius, the best of each chosen by validation.

First every radius is tried with a few seeds; then the chosen one of each method is run with all
seeds. The choice rests on the first stage alone and never on the test.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mbrl_flat.errors import UserError
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.experiments.methods import check_method
from mbrl_flat.studies.framework import Trial, TrialRows


def best_radius(
    rows: TrialRows, radii: Sequence[float], metric: str, *, highest: bool = False
) -> float:
    """The radius with the lowest or highest mean of a metric.

    Args:
        rows: Those among which is chosen.
        radii: Values of rho that were run.
        metric: Name of the column of the rows that decides.
        highest: Whether more is better.

    Returns:
        The radius; of equal ones the smaller, and one at which a run diverged only if there is no
        other.
    """

    def rank(rho: float) -> tuple[bool, float, float]:
        at = rows.where(rho=float(rho))
        values = at.values(metric)
        mean = math.fsum(values) / len(values) if values else math.inf
        return bool(at.diverged_at()), -mean if values and highest else mean, rho

    return float(min(radii, key=rank))


@dataclass(frozen=True, kw_only=True)
class RadiusSearch(CheckedSettings):
    """Methods with their radii, on one task.

    Attributes:
        radii: Radii of each method that are tried; 0 stands for a method without one.
        tries: Seeds 0 to ``tries - 1`` are run at every radius.
        seeds: Seeds 0 to ``seeds - 1`` are run at the chosen radius.
        common: Further settings of all cells, such as the network.
    """

    radii: Mapping[str, Sequence[float]] = setting(allowed="[0, inf)")
    tries: int = setting(allowed="[1, inf)")
    seeds: int = setting(allowed="[1, inf)")
    common: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.tries <= self.seeds:
            raise UserError(
                f"tries must lie between 1 and seeds, got tries={self.tries}, seeds={self.seeds}."
            )
        for method in self.radii:
            check_method(method)
        empty = [method for method, values in self.radii.items() if not values]
        if empty:
            raise UserError(f"{empty[0]} has no radius to try; give at least one, 0 for none.")

    def cells(self, rows: TrialRows) -> list[Trial]:
        """The first stage, and the second once the first is there."""
        first = [
            self._cell(method, rho, seed)
            for method, values in self.radii.items()
            for rho in values
            for seed in range(self.tries)
        ]
        if not self.is_complete(rows):
            return first
        return first + [
            self._cell(method, self.chosen(rows, method), seed)
            for method in self.radii
            for seed in range(self.tries, self.seeds)
        ]

    def is_complete(self, rows: TrialRows) -> bool:
        """Whether the rows have all of the first stage."""
        return all(
            len(self._tried(rows, method).where(rho=float(rho))) == self.tries
            for method, values in self.radii.items()
            for rho in values
        )

    def chosen(self, rows: TrialRows, method: str) -> float:
        """Radius with the best mean validation accuracy in the first stage."""
        tried = self._tried(rows, method)
        return best_radius(tried, self.radii[method], "validation_accuracy", highest=True)

    def edge(self, rows: TrialRows, method: str) -> str:
        """Say whether the chosen radius is an end of its grid, beyond which a better may lie."""
        radii = self.radii[method]
        at_end = len(radii) > 1 and self.chosen(rows, method) in (min(radii), max(radii))
        return f"best rho of {method} at the edge of its grid" if at_end else ""

    def at_chosen(self, rows: TrialRows, method: str) -> TrialRows:
        """Rows of a method at its chosen radius, all seeds."""
        return self._ours(rows, method).where(rho=self.chosen(rows, method))

    def _tried(self, rows: TrialRows, method: str) -> TrialRows:
        return TrialRows([row for row in self._ours(rows, method) if row["seed"] < self.tries])

    def _ours(self, rows: TrialRows, method: str) -> TrialRows:
        return rows.where(**self.common, method=method)

    def _cell(self, method: str, rho: float, seed: int) -> Trial:
        return Trial(**self.common, method=method, rho=float(rho), seed=seed)
