"""A sweep of radii: every method at every radius, the best of each chosen by validation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbrl_flat.errors import UserError
from mbrl_flat.supervised.study import Cell, Rows
from mbrl_flat.supervised.study.rows import DIVERGED

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vasso_0.2": ("vasso", {"theta": 0.2}),
    "vasso_0.9": ("vasso", {"theta": 0.9}),
}
"""Methods under a name of their own: optimizer of the registry and settings."""


def optimizer_of(method: str, rho: float) -> tuple[str, dict[str, Any]]:
    """Name in the registry and settings of a method at a radius; 0 means that it has none."""
    name, settings = VARIANTS.get(method, (method, {}))
    return name, {**settings, "rho": rho} if rho else dict(settings)


def sweep_cells(radii: Mapping[str, Sequence[float]], seeds: int, **common: Any) -> list[Cell]:
    """Make one cell for each method, radius and seed.

    Args:
        radii: Radii of each method; 0 stands for none.
        seeds: Seeds 0 to ``seeds - 1``.
        common: Further settings of all cells.

    Returns:
        The cells.

    Raises:
        UserError: If there is no seed, or a method has no radius.
    """
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, got {seeds}.")
    empty = [method for method, values in radii.items() if not values]
    if empty:
        raise UserError(f"{empty[0]} has no radius to try; give at least one, 0 for none.")
    return [
        Cell(**common, method=method, rho=float(rho), seed=seed)
        for method, values in radii.items()
        for rho in values
        for seed in range(seeds)
    ]


def chosen_radius(rows: Rows, method: str, *, score: str = "validation_accuracy") -> float:
    """Radius with the best mean validation score over seeds; the smaller one of a tie.

    A radius at which a run diverged is not chosen, unless there is none else.

    Args:
        rows: Rows of one study, of one data set and model.
        method: Whose.
        score: What to choose by; never the test.

    Returns:
        The radius.
    """
    ours = rows.where(method=method)

    def goodness(rho: float) -> tuple[bool, float, float]:
        at = ours.where(rho=rho)
        values = at.values(score)
        mean = math.fsum(values) / len(values) if values else -math.inf
        return not any(DIVERGED in row for row in at), mean, -rho

    return max(ours.distinct("rho"), key=goodness)


def at_chosen(rows: Rows, method: str) -> Rows:
    """Rows of a method at its chosen radius."""
    return rows.where(method=method, rho=chosen_radius(rows, method))
