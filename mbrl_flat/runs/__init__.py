"""One run: its configuration, its folder, and building, training, evaluating and probing it."""

from mbrl_flat.errors import require_extra

require_extra("train", "gymnasium", "yaml", "matplotlib")
