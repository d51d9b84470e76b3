"""VaSSO: is an averaged adversary steadier, truer, less friendly, and better for it?

References:
    Li & Giannakis, "Enhancing Sharpness-Aware Optimization Through Variance Suppression",
    NeurIPS 2023, arXiv:2309.15639. The paper's label noise is on CIFAR-10 with a ResNet-18.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, NamedTuple

from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import PALETTE, add_legend, make_panels
from mbrl_flat.analysis.stats import standard_error, t_interval
from mbrl_flat.optim import module_groups
from mbrl_flat.optim.methods.vasso import smoothed_ascent
from mbrl_flat.optim.sharpness_aware import RuleSAM
from mbrl_flat.studies.experiments.adversaries import Adversaries
from mbrl_flat.studies.experiments.comparison import (
    ComparisonStudy,
    Declared,
    MethodComparison,
    PairClaim,
    compared,
)
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, paired_claim
from mbrl_flat.studies.framework.study import Value
from mbrl_flat.studies.training import build_base, loss_function, train


class AdversaryClaim(NamedTuple):
    """VaSSO's adversary differs from SAM's at the same weights."""

    name: str
    statement: str
    metric: str
    words: str
    above: float | None = None
    below: float | None = None
    theta: str = "0.2"

    def of(self, runs: MethodComparison, rows: TrialRows, network: str) -> Claim:
        """Build the claim; see ``Declared``."""
        del runs
        watched = rows.where(adversaries=network)
        new, sam = (watched.by_seed(f"{self.metric}_{theta}") for theta in (self.theta, "1"))
        # The excess is measured against SAM's already.
        sam = dict.fromkeys(new, 0.0) if self.metric == "excess" else sam
        statement = f"{network}: {self.statement}"
        return paired_claim(
            self.name, statement, self.words, new, sam, above=self.above, below=self.below
        )


@dataclass(frozen=True, kw_only=True)
class VaSSO(ComparisonStudy):
    """The study; its settings beside those of ``ComparisonStudy``.

    Attributes:
        theta: Weight of the new gradient in the adversary that acts, where they are watched.
        thetas: Weights that are watched beside it.
        every: Steps between comparisons with the full gradient.
    """

    title = "VaSSO on noisy labels"
    paper = "Li & Giannakis, VaSSO, arXiv:2309.15639"
    declared: ClassVar[tuple[Declared, ...]] = (
        AdversaryClaim(
            "C1",
            "successive adversaries are more alike than SAM's, by 0.3 or more",
            "cosine",
            "cosine at theta 0.2 minus theta 1, same weights",
            above=0.3,
        ),
        AdversaryClaim(
            "C2",
            "the adversary is nearer to that of the full gradient",
            "error",
            "squared distance over rho squared, minus SAM's, same weights",
            below=0.0,
        ),
        AdversaryClaim(
            "C3",
            "the adversary finds a higher full training loss than SAM's",
            "excess",
            "difference of the losses at equal radius, same weights",
            above=0.0,
        ),
        PairClaim(name="C4", statement="beats SAM", pair=("vasso_0.2", "sam"), above=0.0),
        PairClaim(name="C4", statement="beats the base", pair=("vasso_0.2", "base"), above=0.0),
        PairClaim(
            name="control",
            statement="a random direction of the same length is worse",
            pair=("random_direction", "vasso_0.2"),
            below=0.0,
        ),
    )

    runs: MethodComparison = field(
        default_factory=compared(
            {"random_direction": "vasso_0.2"},
            mlp={"vasso_0.2": [0.7, 1.0, 1.4, 2.0], "friendly_sam": [0.7, 1.0, 1.4, 2.0]},
            cnn={"vasso_0.2": [0.25, 0.5, 1.0]},
            vit={"vasso_0.2": [0.2, 0.3, 0.45]},
        )
    )
    theta: float = 0.2
    thetas: Sequence[float] = (0.02, 0.05, 0.2, 0.5, 1.0)
    every: int = 20

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Accuracies on every network; then the adversaries at the chosen radius."""
        cells = self.runs.cells(rows)
        watched = [
            Trial(adversaries=net, rho=self.runs.chosen(rows, net, "vasso_0.2"), seed=seed)
            for net in self.runs.networks
            if self.runs.is_swept(rows, net)
            for seed in range(self.runs.seeds)
        ]
        return [*cells, *watched]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once, with or without a watch on the adversaries."""
        if "adversaries" not in cell:
            return super().measure(cell)
        task, seed = self.runs.tasks[str(cell["adversaries"])], int(cell["seed"] or 0)
        x, y = task.split(seed).train
        model, recipe = task.model(seed), task.recipe()
        loss_of = loss_function(recipe)
        watch = Adversaries(
            partial(smoothed_ascent, theta=self.theta),
            thetas=self.thetas,
            full_loss=lambda: loss_of(model(x), y),
            every=self.every,
        )
        optimizer = RuleSAM(
            module_groups({"": model}),
            base=build_base(recipe),
            rule=watch,
            rho=float(cell["rho"] or 0.0),
            same_rng=False,
        )
        train(model, x, y, recipe, seed=seed, optimizer=optimizer)
        return watch.means()

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """C1 to C4 on every network, and the control."""
        theta = f"{self.theta:g}"
        declared = [
            c._replace(theta=theta, words=c.words.replace("0.2", theta))
            if isinstance(c, AdversaryClaim)
            else c
            for c in self.declared
        ]
        return [c.of(self.runs, rows, network) for network in self.runs.networks for c in declared]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Accuracy and sharpness against the radius; the adversaries against theta."""
        figure, panels = make_panels(3, columns=3, title="Averaged adversaries, same weights")
        titles = {
            "cosine": "cosine of successive adversaries",
            "error": "squared error of the direction",
            "excess": "full loss above SAM's adversary",
        }
        for axes, (name, title) in zip(panels, titles.items(), strict=True):
            for number, net in enumerate(self.runs.networks):
                ours = rows.where(adversaries=net)
                values = [ours.values(f"{name}_{theta:g}") for theta in self.thetas]
                means = [t_interval(each).point for each in values]
                errors = [standard_error(each) for each in values]
                axes.errorbar(
                    self.thetas, means, errors, color=PALETTE[number], marker="o", label=net
                )
            axes.set_xscale("log")
            axes.set_xlabel("theta, weight of the new gradient (1 is SAM)")
            axes.set_ylabel(title)
        add_legend(panels[0])
        return {**super().figures(rows), "adversaries": figure}
