"""Which optimizers keep a network from learning wrong labels by heart.

Digits with 40 % of the training labels drawn anew, a BatchNorm perceptron that is large enough to
memorise all of them, every method at several radii. The radius is chosen by the accuracy on a
validation split with right labels; the test split is looked at once. Networks that memorise score
about 100 % on the noisy training labels, one that ignores all noise about 64 %.

References:
    Foret et al., ICLR 2021, arXiv:2010.01412, Section 3.3, is where SAM was first tried on noisy
    labels. The protocol on digits is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from matplotlib.figure import Figure

from mbrl_flat.plot_style import add_legend, make_panels
from mbrl_flat.supervised.experiments.sweep import at_chosen, chosen_radius, sweep_cells
from mbrl_flat.supervised.experiments.sweep_plots import draw_sweep
from mbrl_flat.supervised.experiments.task import NoisyDigits
from mbrl_flat.supervised.study import Cell, Claim, Rows, paired_claim
from mbrl_flat.supervised.study.study import Value


def _radii() -> dict[str, list[float]]:
    return {
        "sgd": [0.0],
        "sam": [0.2, 0.5, 0.7, 1.0, 1.4],
        "asam": [1.0, 2.0, 4.0, 8.0, 11.0],
        "sam_on": [1.5, 3.5, 5.0, 7.0, 10.0],
        "msam": [1.0, 2.0, 3.0, 4.0, 5.0, 7.0],
        "vasso_0.2": [0.5, 1.0, 1.3, 1.6],
        "vasso_0.9": [0.5, 0.7, 1.0, 1.4],
        "friendly_sam": [0.5, 0.7, 1.0, 1.4],
        "random_direction": [0.5, 1.0, 3.0, 6.0],
    }


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """The study; its settings.

    Attributes:
        task: Data, network and training.
        radii: Radii of each method that is tried; a radius of 0 stands for none.
        seeds: Seeds of each; a seed determines split, noise, start and order.
    """

    title: ClassVar[str] = "Label noise on digits"
    paper: ClassVar[str] = "the SAM family (Foret et al., arXiv:2010.01412, Section 3.3)"

    task: NoisyDigits = field(default_factory=NoisyDigits)
    radii: Mapping[str, Sequence[float]] = field(default_factory=_radii)
    seeds: int = 5

    def cells(self, rows: Rows) -> Sequence[Cell]:
        """The whole sweep at once."""
        del rows
        return sweep_cells(self.radii, self.seeds)

    def measure(self, cell: Cell) -> Mapping[str, Value]:
        """Train once and look at all three splits."""
        return self.task.trained(cell).scores()

    def claims(self, rows: Rows) -> Sequence[Claim]:
        """Gain of each method over SGD in test accuracy, at radii chosen by validation."""
        baseline = at_chosen(rows, "sgd").by_seed("test_accuracy")
        claims: list[Claim] = []
        for number, method in enumerate((m for m in self.radii if m != "sgd"), start=1):
            ours = at_chosen(rows, method).by_seed("test_accuracy")
            control = method == "random_direction"
            claims.append(
                paired_claim(
                    f"L{number}",
                    f"{method} gains {'less than 5 points' if control else 'more than 5 points'} "
                    f"over SGD",
                    f"test accuracy minus SGD's, points, rho {chosen_radius(rows, method):g}",
                    ours,
                    baseline,
                    above=None if control else 5.0,
                    below=5.0 if control else None,
                )
            )
        return claims

    def figures(self, rows: Rows) -> Mapping[str, Figure]:
        """Test accuracy and memorised noise against the radius."""
        figure, (right, learned) = make_panels(2, title=self.title)
        draw_sweep(right, rows, "test_accuracy", "test accuracy, %")
        draw_sweep(learned, rows, "train_accuracy", "accuracy on the noisy training labels, %")
        add_legend(right)
        return {"accuracy": figure}
