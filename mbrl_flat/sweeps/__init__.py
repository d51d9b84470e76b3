"""Many runs by one command: where they lie, how one is made, and what became of each.

Hydra's sweepers choose the settings and its launchers the places; each run is then made in a
process of its own, so that one that dies takes nothing with it.
"""

from mbrl_flat.sweeps.command import make_sweep as make_sweep
from mbrl_flat.sweeps.command import wants_sweep as wants_sweep
from mbrl_flat.sweeps.folder import SweepFolder as SweepFolder
from mbrl_flat.sweeps.folder import quoted as quoted
from mbrl_flat.sweeps.folder import run_name as run_name
from mbrl_flat.sweeps.job import SweepJob as SweepJob
from mbrl_flat.sweeps.job import share_of_cores as share_of_cores
