"""Many runs side by side: one page, one table, a few figures."""

from mbrl_flat.errors import require_extra

require_extra("train", "jinja2", "matplotlib", "yaml")
