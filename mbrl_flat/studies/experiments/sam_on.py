"""SAM-ON: are normalisation layers all that has to be perturbed?

References:
    Mueller, Vlaar, Rolnick & Hein, "Normalization Layers Are All That Sharpness-Aware
    Minimization Needs", NeurIPS 2023, arXiv:2306.04226.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from matplotlib.figure import Figure

from mbrl_flat.studies.experiments.comparison import MethodComparison
from mbrl_flat.studies.framework import Claim, Trial, TrialRows, point_claim
from mbrl_flat.studies.framework.study import Value


def _runs() -> MethodComparison:
    return MethodComparison(
        radii={
            "mlp": {
                "base": [0.0],
                "sam": [0.7, 1.0, 1.4],
                "sam_on": [5.0, 7.0, 10.0],
                "no_norm": [0.7, 1.0, 1.4],
            },
            "cnn": {
                "base": [0.0],
                "sam": [0.25, 0.5, 1.0],
                "sam_on": [1.0, 2.0, 4.0],
                "no_norm": [0.25, 0.5, 1.0],
            },
            "vit": {
                "base": [0.0],
                "sam": [0.2, 0.3, 0.45],
                "sam_on": [1.0, 2.0, 4.0],
                "no_norm": [0.2, 0.3, 0.45],
            },
        },
        controls={"random_mask": "sam_on", "random_direction": "sam"},
    )


@dataclass(frozen=True, kw_only=True)
class SAMON:
    """The study; its settings.

    Attributes:
        runs: Methods, their radii, networks and seeds.
    """

    title: ClassVar[str] = "SAM-ON on noisy labels"
    paper: ClassVar[str] = "Mueller, Vlaar, Rolnick & Hein, SAM-ON, arXiv:2306.04226"

    runs: MethodComparison = field(default_factory=_runs)

    def cells(self, rows: TrialRows) -> Sequence[Trial]:
        """Sweeps and controls on every network."""
        return self.runs.cells(rows)

    def measure(self, cell: Trial) -> Mapping[str, Value]:
        """Train once."""
        return self.runs.measure(cell)

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """C1 to C5 on every network."""
        return [claim for net in self.runs.networks for claim in self._claims(rows, net)]

    def _claims(self, rows: TrialRows, net: str) -> list[Claim]:
        runs = self.runs
        return [
            runs.claim(rows, "C1", "beats the base", (net, "sam_on", "base"), above=0.0),
            runs.claim(
                rows, "C1", "is as good as SAM on all weights", (net, "sam_on", "sam"), above=0.0
            ),
            runs.claim(
                rows,
                "C2",
                "a random set of as many weights does less at that radius",
                (net, "random_mask", "sam_on"),
                below=0.0,
            ),
            runs.claim(
                rows,
                "C3",
                "SAM without normalisation layers is worse than SAM on all weights",
                (net, "no_norm", "sam"),
                below=0.0,
            ),
            point_claim(
                "C4",
                f"{net}: its best radius is at least 3 times SAM's",
                "ratio of the radii chosen by validation",
                runs.chosen(rows, net, "sam_on") / runs.chosen(rows, net, "sam"),
                num_seeds=self.runs.tries,
                above=3.0 - 1e-9,
            ),
            runs.claim(
                rows,
                "C5",
                "its minimum is sharper than that of SAM on all weights",
                (net, "sam_on", "sam"),
                metric="lambda_max",
                above=0.0,
            ),
            runs.claim(
                rows,
                "control",
                "a random direction of the length of SAM's is worse than SAM",
                (net, "random_direction", "sam"),
                below=0.0,
            ),
        ]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """Accuracy and sharpness against the radius."""
        return self.runs.figures(rows, self.title)
