"""Supervised benchmarks: the claims of the optimizers' papers, checked one by one."""

from mbrl_flat.errors import require_extra

require_extra("train", "gymnasium", "matplotlib")
