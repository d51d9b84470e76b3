"""Optimizers: one interface, one registry, one file a paper."""

from mbrl_flat.optim.averaging import evaluation_params
from mbrl_flat.optim.base import FlatOptimizer, OptimizerFactory
from mbrl_flat.optim.groups import module_groups
from mbrl_flat.optim.methods.asam import ASAM
from mbrl_flat.optim.methods.bsam import BSAM
from mbrl_flat.optim.methods.cr_sam import CRSAM
from mbrl_flat.optim.methods.ema import EMA
from mbrl_flat.optim.methods.entropy_sgd import EntropySGD
from mbrl_flat.optim.methods.esam import ESAM
from mbrl_flat.optim.methods.fisher_sam import FisherSAM
from mbrl_flat.optim.methods.friendly_sam import FriendlySAM
from mbrl_flat.optim.methods.functional_sam import FunctionalSAM
from mbrl_flat.optim.methods.gam import GAM
from mbrl_flat.optim.methods.gnp import GNP
from mbrl_flat.optim.methods.gsam import GSAM
from mbrl_flat.optim.methods.ivon import IVON
from mbrl_flat.optim.methods.laprop import LaProp, LaPropOptimizer
from mbrl_flat.optim.methods.looksam import LookSAM
from mbrl_flat.optim.methods.lpf_sgd import LPFSGD
from mbrl_flat.optim.methods.msam import MomentumSAM
from mbrl_flat.optim.methods.plain import SGD, Adam, AdamW
from mbrl_flat.optim.methods.preconditioned_sam import PreconditionedSAM
from mbrl_flat.optim.methods.random_direction import RandomDirection
from mbrl_flat.optim.methods.sagm import SAGM
from mbrl_flat.optim.methods.sam import SAM
from mbrl_flat.optim.methods.sam_as_published import SAMAsPublished
from mbrl_flat.optim.methods.sam_on import SAMON
from mbrl_flat.optim.methods.sampa import SAMPa
from mbrl_flat.optim.methods.sassha import SASSHA
from mbrl_flat.optim.methods.ssam import SSAM
from mbrl_flat.optim.methods.stable_sam import StableSAM
from mbrl_flat.optim.methods.swa import SWA
from mbrl_flat.optim.methods.vasso import VaSSO
from mbrl_flat.optim.methods.vgd import VGD
from mbrl_flat.optim.methods.wsam import WSAM
from mbrl_flat.optim.methods.zsharp import ZSharp
from mbrl_flat.optim.muon import MuonWithAdamW
from mbrl_flat.optim.registry import OPTIMIZERS, Entry, make_optimizer, register
from mbrl_flat.optim.step_options import StepOptions
from mbrl_flat.optim.with_base import PlainOptimizer

__all__ = [
    "ASAM",
    "BSAM",
    "CRSAM",
    "EMA",
    "ESAM",
    "GAM",
    "GNP",
    "GSAM",
    "IVON",
    "LPFSGD",
    "OPTIMIZERS",
    "SAGM",
    "SAM",
    "SAMON",
    "SASSHA",
    "SGD",
    "SSAM",
    "SWA",
    "VGD",
    "WSAM",
    "Adam",
    "AdamW",
    "EntropySGD",
    "Entry",
    "FisherSAM",
    "FlatOptimizer",
    "FriendlySAM",
    "FunctionalSAM",
    "LaProp",
    "LaPropOptimizer",
    "LookSAM",
    "MomentumSAM",
    "MuonWithAdamW",
    "OptimizerFactory",
    "PlainOptimizer",
    "PreconditionedSAM",
    "RandomDirection",
    "SAMAsPublished",
    "SAMPa",
    "StableSAM",
    "StepOptions",
    "VaSSO",
    "ZSharp",
    "evaluation_params",
    "make_optimizer",
    "module_groups",
    "register",
]
