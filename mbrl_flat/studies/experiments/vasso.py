"""VaSSO: is an averaged adversary steadier, truer, less friendly, and better for it?

References:
    Li & Giannakis, "Enhancing Sharpness-Aware Optimization Through Variance Suppression",
    NeurIPS 2023, arXiv:2309.15639. The paper's label noise is on CIFAR-10 with a ResNet-18.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import MARKS, add_legend, log_axis, make_panels
from mbrl_flat.optim import module_groups
from mbrl_flat.optim.methods.vasso import smoothed_ascent
from mbrl_flat.optim.sharpness_aware import RuleSAM
from mbrl_flat.settings import setting
from mbrl_flat.studies.experiments.adversaries import Adversaries
from mbrl_flat.studies.experiments.comparison import ComparisonStudy, PairClaim
from mbrl_flat.studies.experiments.sweep_plots import NETWORKS, draw_means
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value, sign_claim
from mbrl_flat.studies.training import build_base, loss_function, train

_WATCHED = {
    "cosine": "cosine of successive directions",
    "error": "squared error of the direction",
    "excess": "full loss above SAM's",
}


class AdversaryClaim(NamedTuple):
    """VaSSO's adversary differs from SAM's at the same weights."""

    name: str
    statement: str
    metric: str
    words: str
    above: float = -math.inf
    below: float = math.inf

    def of(self, study: ComparisonStudy, rows: TrialRows, network: str) -> Claim:
        """Build the claim; see ``Declared``."""
        assert isinstance(study, VaSSO)
        watched, theta = rows.where(adversaries=network), f"{study.theta:g}"
        ours, sam = f"{self.metric}_{theta}", f"{self.metric}_1"
        # The excess is measured against SAM's already.
        new = watched.values(ours) if self.metric == "excess" else watched.minus(watched, ours, sam)
        words = self.words.format(theta=theta)
        statement = f"{network}: {self.statement}"
        return sign_claim(self.name, statement, words, new, above=self.above, below=self.below)


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
    declared = (
        AdversaryClaim(
            "C1",
            "successive adversaries are more alike than SAM's, by 0.3 or more",
            "cosine",
            "cosine at theta {theta} minus theta 1, same weights",
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
        PairClaim("C4", "beats SAM", ("vasso_0.2", "sam"), above=0.0),
        PairClaim("C4", "beats the base", ("vasso_0.2", "base"), above=0.0),
        PairClaim(
            "control",
            "a random direction of the same length is worse",
            ("random_direction", "vasso_0.2"),
            below=0.0,
        ),
    )

    theta: float = setting(0.2, "(0, 1]")
    thetas: Sequence[float] = setting((0.02, 0.05, 0.2, 0.5, 1.0), "(0, 1]")
    every: int = setting(20, "[1, inf)")

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Accuracies on every network; then the adversaries at the chosen radius."""
        watched = [
            Trial(adversaries=net, rho=self.runs.chosen(rows, net, "vasso_0.2"), seed=seed)
            for net in self.runs.networks
            if self.runs.sweep(net).is_complete(rows)
            for seed in range(self.runs.seeds)
        ]
        return [*self.runs.cells(rows), *watched]

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once, with or without a watch on the adversaries."""
        if "adversaries" not in cell:
            return super().measure(cell)
        task, seed = self.runs.tasks[cell["adversaries"]], cell["seed"]
        x, y = task.split(seed).train
        model, recipe = task.model(seed), task.recipe()
        watch = Adversaries(
            partial(smoothed_ascent, theta=self.theta),
            thetas=self.thetas,
            full_loss=lambda: loss_function(recipe)(model(x), y),
            every=self.every,
        )
        groups, rho = module_groups({"": model}), cell["rho"]
        optimizer = RuleSAM(groups, base=build_base(recipe), rule=watch, rho=rho, same_rng=False)
        train(model, x, y, recipe, seed=seed, optimizer=optimizer)
        return watch.means()

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Accuracy and sharpness against the radius; the adversaries against theta."""
        figure, panels = make_panels(3, columns=3, title="VaSSO's perturbations, at equal weights")
        for axes, (name, title) in zip(panels, _WATCHED.items(), strict=True):
            for mark, net in zip(MARKS, self.runs.networks, strict=False):
                ours = rows.where(adversaries=net)
                values = [ours.values(f"{name}_{theta:g}") for theta in self.thetas]
                draw_means(axes, self.thetas, values, **mark, label=NETWORKS.get(net, net))
            log_axis(axes, "x")
            axes.set_xlabel("theta, weight of the new gradient", fontsize=9)
            axes.set_title(title, fontsize=9)
        add_legend(*panels)
        return {**super().figures(rows), "adversaries": figure}
