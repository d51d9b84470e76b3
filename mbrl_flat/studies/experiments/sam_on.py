"""SAM-ON: are normalisation layers all that has to be perturbed?

References:
    Mueller, Vlaar, Rolnick & Hein, "Normalization Layers Are All That Sharpness-Aware
    Minimization Needs", NeurIPS 2023, arXiv:2306.04226.
"""

from dataclasses import dataclass

from mbrl_flat.studies.experiments.comparison import ComparisonStudy, PairClaim, RadiusRatio

_OURS = ("sam_on", "sam")


@dataclass(frozen=True, kw_only=True)
class SAMON(ComparisonStudy):
    """The study; its settings are those of ``ComparisonStudy``."""

    title = "SAM-ON on noisy labels"
    paper = "Mueller, Vlaar, Rolnick & Hein, SAM-ON, arXiv:2306.04226"
    declared = (
        PairClaim("C1", "beats the base", ("sam_on", "base"), above=0.0),
        PairClaim("C1", "is as good as SAM on all weights", _OURS, above=0.0),
        PairClaim(
            "C2",
            "a random set of as many weights does less at that radius",
            ("random_mask", "sam_on"),
            below=0.0,
        ),
        PairClaim(
            "C3",
            "SAM without normalisation layers is worse than SAM on all weights",
            ("no_norm", "sam"),
            below=0.0,
        ),
        RadiusRatio("C4", "its best radius is at least 3 times SAM's", _OURS, above=3.0),
        PairClaim(
            "C5",
            "its minimum is sharper than that of SAM on all weights",
            _OURS,
            metric="lambda_max",
            above=0.0,
        ),
        PairClaim(
            "control",
            "a random direction of the length of SAM's is worse than SAM",
            ("random_direction", "sam"),
            below=0.0,
        ),
    )
