"""Optimizers: one interface, one registry, one file a paper."""

from mbrl_flat.optim.base import FlatOptimizer, OptimizerFactory, evaluation_params
from mbrl_flat.optim.groups import module_groups
from mbrl_flat.optim.methods import plain, random_direction, sam
from mbrl_flat.optim.registry import OPTIMIZERS, Entry, make_optimizer, register

__all__ = [
    "OPTIMIZERS",
    "Entry",
    "FlatOptimizer",
    "OptimizerFactory",
    "evaluation_params",
    "make_optimizer",
    "module_groups",
    "register",
]

METHODS = (plain, random_direction, sam)
"""Modules whose import fills the registry; a new method is added here."""
