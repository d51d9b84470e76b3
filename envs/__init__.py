"""Environments: each is a factory ``make(task, *, seed, render)``; nothing here knows an agent."""

from mbrl_flat.errors import require_extra

require_extra("train", "gymnasium")

from mbrl_flat.envs.vector import (  # noqa: E402  # only where its packages are there
    make_vector,
    restore_vector,
    spec_of,
    vector_state,
)

__all__ = ["make_vector", "restore_vector", "spec_of", "vector_state"]
