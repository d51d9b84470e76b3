"""Many runs by one command: where they lie, how one is made, and what became of each.

Hydra's sweepers choose the settings and its launchers the places; each run is then made in a
process of its own, so that one that dies takes nothing with it.
"""

from mbrl_flat.sweeps.command import make_sweep, wants_sweep
from mbrl_flat.sweeps.folder import SweepFolder, quoted, run_name
from mbrl_flat.sweeps.job import SweepJob, share_of_cores

__all__ = [
    "SweepFolder",
    "SweepJob",
    "make_sweep",
    "quoted",
    "run_name",
    "share_of_cores",
    "wants_sweep",
]
