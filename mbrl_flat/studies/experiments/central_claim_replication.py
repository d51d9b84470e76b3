"""Does what ``central_claim`` found on one task hold on another? Trials as there, fewer claims.

References:
    Hypotheses and the choice of the data: ``docs/studies/central_claim_replication/plan.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from matplotlib.figure import Figure

from mbrl_flat.settings import setting
from mbrl_flat.studies.experiments.central_claim import CentralClaim
from mbrl_flat.studies.experiments.central_claim_control import compared_control
from mbrl_flat.studies.experiments.central_claim_report import (
    PRIMARY,
    entry_claims,
    lower_of,
    shrinks_with_data,
)
from mbrl_flat.studies.framework import Claim, TrialRows
from mbrl_flat.studies.offline.control import Control

_LOWER = (
    *(("C1", variant, "adam_matched", "train_lambda_max") for variant in ("sam", "msam")),
    *(("C2", variant, "adam_matched", "state_error_last") for variant in ("msam", "sam")),
    *(("C2", "sam", other, "state_error_last") for other in ("adam", "random_direction")),
    *(("C2", variant, "adam_matched", "compounding") for variant in ("sam", "msam")),
    *(("C3", variant, "adam_matched", "value_error_0") for variant in ("sam", "msam")),
    ("C4", "sam", "adam_matched", "test_loss"),
)
"""Claims that one variant has less of something than another: name, variant, other, metric."""


@dataclass(frozen=True, kw_only=True)
class CentralClaimReplication(CentralClaim):
    """The study with another data set; settings as those of ``CentralClaim``, with own defaults."""

    title: ClassVar[str] = "When does a flat world model help? A second task"

    episodes: Sequence[int] = setting((13,), "[1, inf)")
    control: Control | None = field(default_factory=lambda: Control(episodes=4))

    def claims(self, rows: TrialRows) -> Sequence[Claim]:
        """G: the entry condition; C1 to C4: sharpness, errors; C5, C6: control; C7: less data."""
        most = rows.where(episodes=max(rows.distinct("episodes"), default=0))
        played = TrialRows([row for row in most if "return_3" in row])
        control = (
            claim
            for variant in ("sam", "msam")
            for claim in compared_control(
                played, variant, "adam_matched", names=("C5", "", "C6", "")
            )
        )
        return [
            *entry_claims(most),
            *(lower_of(most, *compared) for compared in _LOWER),
            *(claim for claim in control if claim.name),
            *(
                shrinks_with_data(rows, "C7", variant, metric)
                for variant in ("sam", "msam")
                for metric in PRIMARY
            ),
        ]

    def figures(self, rows: TrialRows) -> Mapping[str, Figure]:
        """As those of the study, without the dose-response."""
        drawn = dict(super().figures(rows))
        del drawn["doses"]
        return drawn
