"""The training loop: collecting, learning, clocks, meters, checkpoints."""

from mbrl_flat.errors import require_extra

require_extra("train", "gymnasium")
