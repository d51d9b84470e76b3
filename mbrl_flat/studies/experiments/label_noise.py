"""Which optimizers keep a network from memorising wrong labels.

Digits with 40 % of the training labels resampled, a BatchNorm perceptron that is large enough to
memorise all of them, every method at several radii. The radius is chosen by the accuracy on a
validation split with right labels; the test split is looked at once. Networks that memorise score
about 100 % on the noisy training labels, one that ignores all noise about 64 %.

References:
    Foret et al., ICLR 2021, arXiv:2010.01412, is where SAM was tried on noisy labels. The
    protocol on digits is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import add_legend, make_panels
from mbrl_flat.studies.experiments.radius_search import RadiusSearch
from mbrl_flat.studies.experiments.sweep_plots import draw_sweep
from mbrl_flat.studies.experiments.task import NoisyDigits
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, paired_claim
from mbrl_flat.studies.framework.study import Value

CONTROLS = ("random_direction",)
"""Methods that are claimed to gain little."""


def _radii() -> dict[str, list[float]]:
    return {
        "base": [0.0],
        "sam": [0.7, 1.0, 1.4],
        "asam": [2.0, 2.8, 4.0, 5.6],
        "sam_on": [5.0, 7.0, 10.0],
        "msam": [2.8, 4.0, 5.6],
        "vasso_0.2": [0.7, 1.0, 1.4, 2.0],
        "friendly_sam": [0.7, 1.0, 1.4, 2.0],
        "random_direction": [1.0],
    }


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """The study; its settings.

    Attributes:
        task: Data, network and training.
        radii: Radii of each method that are tried; ``base`` is SGD and has none.
        tries: Seeds at every radius, by which the best is chosen.
        seeds: Seeds at the best one; a seed determines split, noise, start and order.
    """

    title: ClassVar[str] = "Label noise on digits"
    paper: ClassVar[str] = "the SAM family on noisy labels (Foret et al., arXiv:2010.01412)"

    task: NoisyDigits = field(default_factory=NoisyDigits)
    radii: Mapping[str, Sequence[float]] = field(default_factory=_radii)
    tries: int = 2
    seeds: int = 5

    def __post_init__(self) -> None:
        # What cannot be run is refused before a folder is made.
        self._sweep.cells(TrialRows())

    @property
    def _sweep(self) -> RadiusSearch:
        return RadiusSearch(radii=self.radii, tries=self.tries, seeds=self.seeds, common={})

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """The sweep, then all seeds at the chosen radii."""
        return self._sweep.cells(rows)

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once and look at all three splits."""
        fitted = self.task.fitted(cell)
        return {**fitted.scores(), **fitted.sharpness()}

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """Gain of each method over SGD in test accuracy, at radii chosen by validation."""
        sweep = self._sweep
        baseline = sweep.at_chosen(rows, "base").by_seed("test_accuracy")
        return [
            paired_claim(
                f"L{number}",
                f"{method} gains {'less' if method in CONTROLS else 'more'} than 5 points over SGD",
                f"test accuracy minus SGD's, points, rho {sweep.chosen(rows, method):g}",
                sweep.at_chosen(rows, method).by_seed("test_accuracy"),
                baseline,
                note=sweep.edge(rows, method),
                **{"below" if method in CONTROLS else "above": 5.0},
            )
            for number, method in enumerate((m for m in self.radii if m != "base"), start=1)
        ]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Test accuracy and memorised noise against the radius."""
        figure, (right, learned) = make_panels(2, title=self.title)
        draw_sweep(right, rows, "test_accuracy", "test accuracy, %")
        draw_sweep(learned, rows, "train_accuracy", "accuracy on the noisy training labels, %")
        add_legend(right)
        return {"accuracy": figure}
