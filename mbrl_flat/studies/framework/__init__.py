"""Studies: cells that are computed once, and claims about their rows."""

from mbrl_flat.studies.framework.claims import Claim as Claim
from mbrl_flat.studies.framework.claims import corrected as corrected
from mbrl_flat.studies.framework.claims import not_tested as not_tested
from mbrl_flat.studies.framework.claims import sign_claim as sign_claim
from mbrl_flat.studies.framework.rows import Trial as Trial
from mbrl_flat.studies.framework.rows import TrialRow as TrialRow
from mbrl_flat.studies.framework.rows import TrialRows as TrialRows
from mbrl_flat.studies.framework.runner import check_data as check_data
from mbrl_flat.studies.framework.runner import run_study as run_study
from mbrl_flat.studies.framework.study import Study as Study
from mbrl_flat.studies.framework.study import Value as Value
