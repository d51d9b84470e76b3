"""SAM-ON: are normalisation layers all that has to be perturbed?

References:
    Mueller, Vlaar, Rolnick & Hein, "Normalization Layers Are All That Sharpness-Aware
    Minimization Needs", NeurIPS 2023, arXiv:2306.04226.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from mbrl_flat.studies.experiments.comparison import (
    ComparisonStudy,
    Declared,
    MethodComparison,
    PairClaim,
    RadiusRatio,
    compared,
)


@dataclass(frozen=True, kw_only=True)
class SAMON(ComparisonStudy):
    """The study; its settings are those of ``ComparisonStudy``."""

    title = "SAM-ON on noisy labels"
    paper = "Mueller, Vlaar, Rolnick & Hein, SAM-ON, arXiv:2306.04226"
    declared: ClassVar[tuple[Declared, ...]] = (
        PairClaim(name="C1", statement="beats the base", pair=("sam_on", "base"), above=0.0),
        PairClaim(
            name="C1",
            statement="is as good as SAM on all weights",
            pair=("sam_on", "sam"),
            above=0.0,
        ),
        PairClaim(
            name="C2",
            statement="a random set of as many weights does less at that radius",
            pair=("random_mask", "sam_on"),
            below=0.0,
        ),
        PairClaim(
            name="C3",
            statement="SAM without normalisation layers is worse than SAM on all weights",
            pair=("no_norm", "sam"),
            below=0.0,
        ),
        RadiusRatio(
            name="C4",
            statement="its best radius is at least 3 times SAM's",
            pair=("sam_on", "sam"),
            above=3.0,
        ),
        PairClaim(
            name="C5",
            statement="its minimum is sharper than that of SAM on all weights",
            pair=("sam_on", "sam"),
            metric="lambda_max",
            above=0.0,
        ),
        PairClaim(
            name="control",
            statement="a random direction of the length of SAM's is worse than SAM",
            pair=("random_direction", "sam"),
            below=0.0,
        ),
    )

    runs: MethodComparison = field(
        default_factory=compared(
            {"random_mask": "sam_on", "random_direction": "sam"},
            mlp={"sam_on": [5.0, 7.0, 10.0], "no_norm": [0.7, 1.0, 1.4]},
            cnn={"sam_on": [1.0, 2.0, 4.0], "no_norm": [0.25, 0.5, 1.0]},
            vit={"sam_on": [1.0, 2.0, 4.0], "no_norm": [0.2, 0.3, 0.45]},
        )
    )
