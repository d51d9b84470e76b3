"""Optimizers: one interface, one registry, one file a paper."""

from mbrl_flat.optim.averaging import evaluation_params
from mbrl_flat.optim.base import FlatOptimizer, OptimizerFactory
from mbrl_flat.optim.groups import module_groups
from mbrl_flat.optim.methods import (
    asam,
    bsam,
    cr_sam,
    ema,
    entropy_sgd,
    esam,
    fisher_sam,
    friendly_sam,
    gam,
    gnp,
    gsam,
    ivon,
    laprop,
    looksam,
    lpf_sgd,
    msam,
    plain,
    random_direction,
    sagm,
    sam,
    sam_on,
    ssam,
    swa,
    vasso,
    vgd,
    wsam,
)
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

METHODS = (
    asam,
    bsam,
    cr_sam,
    ema,
    entropy_sgd,
    esam,
    fisher_sam,
    friendly_sam,
    gam,
    gnp,
    gsam,
    ivon,
    laprop,
    looksam,
    lpf_sgd,
    msam,
    plain,
    random_direction,
    sagm,
    sam,
    sam_on,
    ssam,
    swa,
    vasso,
    vgd,
    wsam,
)
"""Modules whose import fills the registry; a new method is added here."""
