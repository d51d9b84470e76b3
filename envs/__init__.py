"""Environments: each is a factory ``make(task, *, seed, render)``; nothing here knows an agent."""

from mbrl_flat.envs.vector import make_vector, restore_vector, spec_of, vector_state

__all__ = ["make_vector", "restore_vector", "spec_of", "vector_state"]
