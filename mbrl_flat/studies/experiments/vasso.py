"""VaSSO: is an averaged adversary steadier, truer, less friendly, and better for it?

References:
    Li & Giannakis, "Enhancing Sharpness-Aware Optimization Through Variance Suppression",
    NeurIPS 2023, arXiv:2309.15639. The paper's label noise is on CIFAR-10 with a ResNet-18.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import PALETTE, add_legend, make_panels
from mbrl_flat.analysis.stats import standard_error, t_interval
from mbrl_flat.optim import module_groups
from mbrl_flat.optim.methods.vasso import smoothed_ascent
from mbrl_flat.optim.sharpness_aware import RuleSAM
from mbrl_flat.studies.experiments.adversaries import Adversaries
from mbrl_flat.studies.experiments.comparison import MethodComparison
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, paired_claim, sign_claim
from mbrl_flat.studies.framework.study import Value
from mbrl_flat.studies.training import build_base, loss_function, train


def _runs() -> MethodComparison:
    return MethodComparison(
        radii={
            "mlp": {
                "base": [0.0],
                "sam": [0.7, 1.0, 1.4],
                "vasso_0.2": [0.7, 1.0, 1.4, 2.0],
                "friendly_sam": [0.7, 1.0, 1.4, 2.0],
            },
            "cnn": {
                "base": [0.0],
                "sam": [0.25, 0.5, 1.0],
                "vasso_0.2": [0.25, 0.5, 1.0],
            },
            "vit": {
                "base": [0.0],
                "sam": [0.2, 0.3, 0.45],
                "vasso_0.2": [0.2, 0.3, 0.45],
            },
        },
        controls={"random_direction": "vasso_0.2"},
    )


@dataclass(frozen=True, kw_only=True)
class VaSSO:
    """The study; its settings.

    Attributes:
        runs: Methods, their radii, networks and seeds.
        theta: Weight of the new gradient in the adversary that acts, where they are watched.
        thetas: Weights that are watched beside it.
        every: Steps between comparisons with the full gradient.
    """

    title: ClassVar[str] = "VaSSO on noisy labels"
    paper: ClassVar[str] = "Li & Giannakis, VaSSO, arXiv:2309.15639"

    runs: MethodComparison = field(default_factory=_runs)
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
            return self.runs.measure(cell)
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
        runs, ours = self.runs, f"{self.theta:g}"
        claims: list[Claim] = []
        for net in self.runs.networks:
            watched = rows.where(adversaries=net)
            sam, new = (
                {name: watched.by_seed(f"{name}_{theta}") for name in ("cosine", "error", "excess")}
                for theta in ("1", ours)
            )
            claims += [
                paired_claim(
                    "C1",
                    f"{net}: successive adversaries are more alike than SAM's, by 0.3 or more",
                    f"cosine at theta {ours} minus theta 1, same weights",
                    new["cosine"],
                    sam["cosine"],
                    above=0.3,
                ),
                paired_claim(
                    "C2",
                    f"{net}: the adversary is nearer to that of the full gradient",
                    "squared distance over rho squared, minus SAM's, same weights",
                    new["error"],
                    sam["error"],
                    below=0.0,
                ),
                sign_claim(
                    "C3",
                    f"{net}: the adversary finds a higher full training loss than SAM's",
                    "difference of the losses at equal radius, same weights",
                    list(new["excess"].values()),
                    above=0.0,
                ),
                runs.claim(rows, "C4", "beats SAM", (net, "vasso_0.2", "sam"), above=0.0),
                runs.claim(rows, "C4", "beats the base", (net, "vasso_0.2", "base"), above=0.0),
                runs.claim(
                    rows,
                    "control",
                    "a random direction of the same length is worse",
                    (net, "random_direction", "vasso_0.2"),
                    below=0.0,
                ),
            ]
        return claims

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
        return {**self.runs.figures(rows, self.title), "adversaries": figure}
