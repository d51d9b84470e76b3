"""Which optimizers keep a network from memorising wrong labels.

Digits with 40 % of the training labels resampled, a BatchNorm perceptron that is large enough to
memorise all of them, every method at several radii. The radius is chosen by the accuracy on a
validation split with right labels; the test split is looked at once. Networks that memorise score
about 100 % on the noisy training labels, one that ignores all noise about 64 %.

References:
    Foret et al., ICLR 2021, arXiv:2010.01412, is where SAM was tried on noisy labels. The
    protocol on digits is ours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from matplotlib.figure import Figure

from mbrl_flat.analysis.plot_style import add_legend, make_panels
from mbrl_flat.studies.experiments.radius_search import RadiusSearch
from mbrl_flat.studies.experiments.sweep_plots import draw_sweep
from mbrl_flat.studies.experiments.task import NoisyDigits
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, Value, sign_claim

CONTROLS = ("random_direction",)
"""Methods that are claimed to gain little."""


@dataclass(frozen=True, kw_only=True)
class LabelNoise(RadiusSearch):
    """The study; its settings beside radii and seeds, whose ``base`` is SGD.

    Attributes:
        task: Data, network and training.
    """

    title: ClassVar[str] = "Label noise on digits"
    paper: ClassVar[str] = "the SAM family on noisy labels (Foret et al., arXiv:2010.01412)"

    task: NoisyDigits = field(default_factory=NoisyDigits)

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once and look at all three splits."""
        return self.task.measure(cell)

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """Gain of each method over SGD in test accuracy, at radii chosen by validation."""
        baseline = self.at_chosen(rows, "base")
        return [
            sign_claim(
                f"L{number}",
                f"{method} gains {'less' if method in CONTROLS else 'more'} than 5 points over SGD",
                f"test accuracy minus SGD's, points, rho {self.chosen(rows, method):g}",
                self.at_chosen(rows, method).minus(baseline, "test_accuracy"),
                note=self.edge(rows, method),
                above=-math.inf if method in CONTROLS else 5.0,
                below=5.0 if method in CONTROLS else math.inf,
            )
            for number, method in enumerate((m for m in self.radii if m != "base"), start=1)
        ]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Test accuracy and memorised noise against the radius."""
        figure, (right, learned) = make_panels(2, title=self.title)
        draw_sweep(right, rows, "test_accuracy", "test accuracy, %")
        draw_sweep(learned, rows, "train_accuracy", "accuracy on noisy labels, %")
        add_legend(right, learned)
        return {"accuracy": figure}
