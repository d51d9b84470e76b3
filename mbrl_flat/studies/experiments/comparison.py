"""Methods against each other on several networks: sweeps, controls, claims that are declared.

A study of one method is a subclass of ``ComparisonStudy`` that declares radii, controls and claims.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Protocol

from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import add_legend, make_panels
from mbrl_flat.errors import UnknownNameError
from mbrl_flat.studies.experiments.radius_search import RadiusSearch
from mbrl_flat.studies.experiments.sweep_plots import draw_sweep
from mbrl_flat.studies.experiments.task import NoisyDigits
from mbrl_flat.studies.framework import (
    Claim,
    Trial,
    TrialRows,
    not_tested,
    paired_claim,
    point_claim,
)
from mbrl_flat.studies.framework.study import Value

Radii = Mapping[str, Mapping[str, Sequence[float]]]
"""Radii that are tried, by network and method; ``base`` has the one radius 0."""


_BASELINES: Radii = {
    "mlp": {"base": [0.0], "sam": [0.7, 1.0, 1.4]},
    "cnn": {"base": [0.0], "sam": [0.25, 0.5, 1.0]},
    "vit": {"base": [0.0], "sam": [0.2, 0.3, 0.45]},
}
"""SGD or AdamW alone, and SAM, on each network of the label-noise task."""


def noisy_tasks() -> dict[str, NoisyDigits]:
    """The label-noise task with a BatchNorm perceptron, a BatchNorm CNN and a LayerNorm ViT."""
    return {
        "mlp": NoisyDigits(),
        "cnn": NoisyDigits(network="cnn", epochs=40, batch_size=128),
        "vit": NoisyDigits(network="vit", epochs=40, batch_size=128),
    }


@dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """What the studies of single methods have in common.

    Attributes:
        radii: Radii of each method on each network; ``base`` is the optimizer without any.
        controls: Methods that are run at the radius chosen for another one, with its name.
        networks: Networks that are run.
        tasks: Task of each network.
        tries: Seeds at every radius, by which the best is chosen.
        seeds: Seeds at the best one.
    """

    radii: Radii
    controls: Mapping[str, str]
    networks: Sequence[str] = ("mlp", "cnn", "vit")
    tasks: Mapping[str, NoisyDigits] = field(default_factory=noisy_tasks)
    tries: int = 2
    seeds: int = 5

    def __post_init__(self) -> None:
        for network in self.networks:
            for kind, known in (("network", self.tasks), ("network", self.radii)):
                if network not in known:
                    raise UnknownNameError(kind, network, known)
            self._sweep(network)

    def cells(self, rows: TrialRows) -> list[Trial]:
        """Sweeps of all networks; then the chosen radii with all seeds, and the controls there."""
        cells: list[Trial] = []
        for network in self.networks:
            sweep = self._sweep(network)
            cells += sweep.cells(rows)
            if sweep.is_complete(rows):
                cells += [
                    Trial(
                        network=network,
                        method=control,
                        rho=sweep.chosen(rows, method),
                        seed=seed,
                    )
                    for control, method in self.controls.items()
                    for seed in range(self.seeds)
                ]
        return cells

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once; accuracies and sharpness."""
        fitted = self.tasks[str(cell["network"])].fitted(cell)
        return {**fitted.scores(), **fitted.sharpness()}

    def is_swept(self, rows: TrialRows, network: str) -> bool:
        """Whether all radii of a network have been tried."""
        return self._sweep(network).is_complete(rows)

    def chosen(self, rows: TrialRows, network: str, method: str) -> float:
        """Radius of a method on a network, chosen by validation."""
        return self._sweep(network).chosen(rows, method)

    def final(self, rows: TrialRows, network: str, method: str) -> TrialRows:
        """TrialRows of all seeds of a method at its chosen radius, or of a control."""
        if method in self.controls:
            rho = self.chosen(rows, network, self.controls[method])
            return rows.where(network=network, method=method, rho=rho)
        return self._sweep(network).at_chosen(rows, method)

    def edges(self, rows: TrialRows, network: str, *methods: str) -> list[str]:
        """Say which methods' chosen radii lie at an end of their grids."""
        sources = dict.fromkeys(self.controls.get(method, method) for method in methods)
        edges = (self._sweep(network).edge(rows, method) for method in sources)
        return [edge for edge in edges if edge]

    def claim(
        self, rows: TrialRows, name: str, statement: str, pair: tuple[str, str, str], **bounds: Any
    ) -> Claim:
        """Build a claim about the difference of two methods on a network.

        Args:
            rows: All rows.
            name: Short name of the claim.
            statement: What is claimed, without the network.
            pair: Network, method and the one that it is compared with.
            bounds: ``metric`` (test accuracy unless given), ``above`` and ``below``.

        Returns:
            The claim.
        """
        network, method, other = pair
        metric = bounds.pop("metric", "test_accuracy")
        radii = ", ".join(f"rho {self._radius(rows, network, m):g}" for m in (method, other))
        ours, theirs = (self.final(rows, network, m).by_seed(metric) for m in (method, other))
        return paired_claim(
            name,
            f"{network}: {statement}",
            f"{metric.replace('_', ' ')} of {method} minus {other} ({radii})",
            ours,
            theirs,
            note="; ".join(self.edges(rows, network, method, other)),
            **bounds,
        )

    def figures(self, rows: TrialRows, title: str) -> dict[str, Figure]:
        """Draw test accuracy and sharpness against the radius, a row of panels for each network."""
        figure, panels = make_panels(2 * len(self.networks), title=title)
        swept = TrialRows([row for row in rows if "test_accuracy" in row])
        for network, pair in zip(self.networks, zip(*[iter(panels)] * 2, strict=True), strict=True):
            ours = swept.where(network=network)
            draw_sweep(pair[0], ours, "test_accuracy", f"{network}: test accuracy, %")
            draw_sweep(pair[1], ours, "lambda_max", f"{network}: largest Hessian eigenvalue")
            pair[1].set_yscale("log")
        add_legend(panels[0])
        return {"sweep": figure}

    def _radius(self, rows: TrialRows, network: str, method: str) -> float:
        return self.chosen(rows, network, self.controls.get(method, method))

    def _sweep(self, network: str) -> RadiusSearch:
        return RadiusSearch(
            radii=self.radii[network],
            tries=self.tries,
            seeds=self.seeds,
            common={"network": network},
        )


class Declared(Protocol):
    """A claim that a study declares and that is made for every network."""

    def of(self, runs: MethodComparison, rows: TrialRows, network: str) -> Claim:
        """Build the claim from the rows of one network."""
        ...


@dataclass(frozen=True, kw_only=True)
class PairClaim:
    """The difference of two methods at their chosen radii lies within bounds.

    Attributes:
        name: Short name of the claim.
        statement: What is claimed, without the network.
        pair: The method and the one that it is compared with.
        metric: What is compared.
        above: Lower bound of the difference.
        below: Upper bound.
    """

    name: str
    statement: str
    pair: tuple[str, str]
    metric: str = "test_accuracy"
    above: float | None = None
    below: float | None = None

    def of(self, runs: MethodComparison, rows: TrialRows, network: str) -> Claim:
        """Build the claim; see ``Declared``."""
        bounds = {"metric": self.metric, "above": self.above, "below": self.below}
        return runs.claim(rows, self.name, self.statement, (network, *self.pair), **bounds)


@dataclass(frozen=True, kw_only=True)
class RadiusRatio:
    """The ratio of two methods' best radii lies within bounds.

    Attributes:
        name: Short name of the claim.
        statement: What is claimed, without the network.
        pair: The method and the one that it is compared with.
        above: Lower bound of the ratio.
        below: Upper bound.
        note: Remark for the table.
    """

    name: str
    statement: str
    pair: tuple[str, str]
    above: float = 0.0
    below: float = math.inf
    note: str = ""

    def of(self, runs: MethodComparison, rows: TrialRows, network: str) -> Claim:
        """Build the claim: it is not tested where no choice on the grid could contradict it."""
        ours, theirs = (runs.radii[network][method] for method in self.pair)
        statement = f"{network}: {self.statement}"
        metric = "ratio of the radii chosen by validation"
        smallest, largest = min(ours) / max(theirs), max(ours) / min(theirs)
        if smallest >= self.above and largest <= self.below:
            reason = f"every ratio on the grid is from {smallest:.3g} to {largest:.3g}"
            return not_tested(self.name, statement, metric, reason)
        edges = runs.edges(rows, network, *self.pair)
        claim = point_claim(
            self.name,
            statement,
            metric,
            runs.chosen(rows, network, self.pair[0]) / runs.chosen(rows, network, self.pair[1]),
            num_seeds=runs.tries,
            above=self.above - 1e-9,
            below=self.below,
            note="; ".join([*([self.note] if self.note else []), *edges]),
        )
        return replace(claim, verdict="inconclusive") if edges else claim


@dataclass(frozen=True, kw_only=True)
class ComparisonStudy:
    """Base of a study of one method on the label-noise task.

    Attributes:
        declared: Its claims, made for every network in this order.
        runs: Methods, their radii, networks and seeds.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    declared: ClassVar[Sequence[Declared]]

    runs: MethodComparison

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Sweeps and controls on every network."""
        return self.runs.cells(rows)

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once."""
        return self.runs.measure(cell)

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """The declared claims, network after network."""
        return [
            claim.of(self.runs, rows, network)
            for network in self.runs.networks
            for claim in self.declared
        ]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Accuracy and sharpness against the radius."""
        return self.runs.figures(rows, self.title)


def compared(
    controls: Mapping[str, str], **radii: Mapping[str, Sequence[float]]
) -> Callable[[], MethodComparison]:
    """Declare the default of ``runs`` of a study: the base, SAM and the study's methods.

    Args:
        controls: Methods that are run at the radius chosen for another one, with its name.
        radii: By network, the radii of the study's methods.

    Returns:
        What builds the default.
    """
    tried = {network: {**_BASELINES[network], **methods} for network, methods in radii.items()}
    return partial(MethodComparison, radii=tried, controls=controls)
