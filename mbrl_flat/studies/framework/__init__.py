"""Studies: cells that are computed once, and claims about their rows."""

from mbrl_flat.studies.framework.claims import (
    Claim,
    corrected,
    not_tested,
    sign_claim,
)
from mbrl_flat.studies.framework.rows import Trial, TrialRow, TrialRows
from mbrl_flat.studies.framework.runner import run_study
from mbrl_flat.studies.framework.study import Study

__all__ = [
    "Claim",
    "Study",
    "Trial",
    "TrialRow",
    "TrialRows",
    "corrected",
    "not_tested",
    "run_study",
    "sign_claim",
]
