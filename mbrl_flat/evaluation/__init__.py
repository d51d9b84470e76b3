"""Episodes of a frozen agent, and what their returns are compared with."""

from mbrl_flat.errors import require_extra

require_extra("train", "gymnasium")
