"""Methods against each other on several networks: sweeps, controls, claims that are declared.

A study of one method is a subclass of ``ComparisonStudy`` that declares its claims; its methods,
radii and networks are those of ``configs/experiment``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Protocol

from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import add_legend, make_panels
from mbrl_flat.errors import UnknownNameError
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.experiments.radius_search import RadiusSearch
from mbrl_flat.studies.experiments.sweep_plots import NETWORKS, draw_sweep
from mbrl_flat.studies.experiments.task import NoisyDigits
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value, not_tested, sign_claim


@dataclass(frozen=True, kw_only=True)
class MethodComparison(CheckedSettings):
    """Methods, radii, networks and seeds of a study.

    Attributes:
        radii: Radii of each method on each network; ``base`` is the optimizer without any.
        controls: Methods that are run at the radius chosen for another one, with its name.
        networks: Networks that are run.
        tasks: Task of each network.
        tries: Seeds at every radius, by which the best is chosen.
        seeds: Seeds at the best one.
    """

    radii: Mapping[str, Mapping[str, Sequence[float]]] = setting(allowed="[0, inf)")
    controls: Mapping[str, str]
    networks: Sequence[str]
    tasks: Mapping[str, NoisyDigits]
    tries: int = setting(2, "[1, inf)")
    seeds: int = setting(5, "[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for network in self.networks:
            for known in (self.tasks, self.radii):
                if network not in known:
                    raise UnknownNameError("network", network, known)
            self.sweep(network)

    def sweep(self, network: str) -> RadiusSearch:
        """The sweep of radii on a network."""
        return RadiusSearch(
            radii=self.radii[network],
            tries=self.tries,
            seeds=self.seeds,
            common={"network": network},
        )

    def cells(self, rows: TrialRows) -> list[Trial]:
        """Sweeps of all networks; then the chosen radii with all seeds, and the controls there."""
        cells: list[Trial] = []
        for network in self.networks:
            sweep = self.sweep(network)
            cells += sweep.cells(rows)
            if sweep.is_complete(rows):
                cells += [
                    Trial(network=network, method=c, rho=sweep.chosen(rows, method), seed=seed)
                    for c, method in self.controls.items()
                    for seed in range(self.seeds)
                ]
        return cells

    def chosen(self, rows: TrialRows, network: str, method: str) -> float:
        """Radius of a method on a network, chosen by validation; a control has another one's."""
        return self.sweep(network).chosen(rows, self.controls.get(method, method))

    def final(self, rows: TrialRows, network: str, method: str) -> TrialRows:
        """Rows of all seeds of a method at its chosen radius, or of a control."""
        rho = self.chosen(rows, network, method)
        return rows.where(network=network, method=method, rho=rho)

    def edges(self, rows: TrialRows, network: str, methods: Sequence[str]) -> list[str]:
        """Say which methods' chosen radii lie at an end of their grids."""
        sources = dict.fromkeys(self.controls.get(method, method) for method in methods)
        edges = (self.sweep(network).edge(rows, method) for method in sources)
        return [edge for edge in edges if edge]


class Declared(Protocol):
    """A claim that a study declares and that is made for every network."""

    def of(self, study: "ComparisonStudy", rows: TrialRows, network: str) -> Claim:
        """Build the claim from the rows of one network."""
        ...


@dataclass(frozen=True)
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
    _: KW_ONLY
    metric: str = "test_accuracy"
    above: float = -math.inf
    below: float = math.inf

    def of(self, study: "ComparisonStudy", rows: TrialRows, network: str) -> Claim:
        """Build the claim; see ``Declared``."""
        runs, (method, other) = study.runs, self.pair
        radii = ", ".join(f"rho {runs.chosen(rows, network, m):g}" for m in self.pair)
        ours, theirs = (runs.final(rows, network, m) for m in self.pair)
        return sign_claim(
            self.name,
            f"{network}: {self.statement}",
            f"{self.metric.replace('_', ' ')} of {method} minus {other} ({radii})",
            ours.minus(theirs, self.metric),
            above=self.above,
            below=self.below,
            note="; ".join(runs.edges(rows, network, self.pair)),
        )


@dataclass(frozen=True)
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
    _: KW_ONLY
    above: float = 0.0
    below: float = math.inf
    note: str = ""

    def of(self, study: "ComparisonStudy", rows: TrialRows, network: str) -> Claim:
        """Build the claim: it is not tested where no choice on the grid could contradict it."""
        runs = study.runs
        ours, theirs = (runs.radii[network][method] for method in self.pair)
        statement = f"{network}: {self.statement}"
        metric = "ratio of the radii chosen by validation"
        smallest, largest = min(ours) / max(theirs), max(ours) / min(theirs)
        if smallest >= self.above and largest <= self.below:
            reason = f"every ratio on the grid is from {smallest:.3g} to {largest:.3g}"
            return not_tested(self.name, statement, metric, reason)
        edges = runs.edges(rows, network, self.pair)
        chosen, other = (runs.chosen(rows, network, method) for method in self.pair)
        claim = sign_claim(
            self.name,
            statement,
            metric,
            [chosen / other],
            num_seeds=runs.tries,
            above=self.above - 1e-9,
            below=self.below,
            note="; ".join([*([self.note] if self.note else []), *edges]),
        )
        return replace(claim, verdict="inconclusive") if edges else claim


@dataclass(frozen=True, kw_only=True)
class ComparisonStudy(CheckedSettings):
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
        """Train once; accuracies and sharpness."""
        return self.runs.tasks[cell["network"]].measure(cell)

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """The declared claims, network after network."""
        return [c.of(self, rows, network) for network in self.runs.networks for c in self.declared]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Draw test accuracy and sharpness against the radius, a row of panels for each network."""
        networks = self.runs.networks
        figure, panels = make_panels(2 * len(networks), title=self.title)
        swept = TrialRows([row for row in rows if "test_accuracy" in row])
        for network, pair in zip(networks, zip(*[iter(panels)] * 2, strict=True), strict=True):
            ours, name = swept.where(network=network), NETWORKS.get(network, network)
            draw_sweep(pair[0], ours, "test_accuracy", f"{name}: test accuracy, %")
            draw_sweep(pair[1], ours, "lambda_max", f"{name}: Hessian eigenvalue")
        add_legend(*panels)
        return {"sweep": figure}
