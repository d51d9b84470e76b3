"""Options of a step, which every optimizer of the registry takes."""

from dataclasses import dataclass
from typing import Literal

from mbrl_flat.optim.settings import setting


@dataclass(kw_only=True, eq=False, repr=False)
class StepOptions:
    """Options that every optimizer of the registry takes.

    Attributes:
        max_grad_norm: Bound on the norm of the final gradient; null for none.
        clip_scope: Bound the norm of all parameters together (``joint``) or of every parameter
            group by itself (``module``); agents make one group for each module.
        on_nonfinite: ``raise`` a ``NonFiniteError``, or ``skip`` the step and count it.
        same_rng: Every evaluation of one step draws the same random numbers.
        frozen_batchnorm: Only the first evaluation of a step moves buffers, such as the running
            statistics of BatchNorm, plain attributes of modules, such as counters and lists of
            tensors, and parameters without gradient, such as codebooks.
        micro_batches: Given several closures, ``replay`` all of them at one common perturbation, or
            give ``each`` its own (m-sharpness).
        sync: In a data-parallel run whose model is not wrapped, average every gradient (``global``:
            one perturbation) or only the final one (``local``: each process has its own). ``none``
            leaves it to the caller.
        compiled: Closures run compiled code, so the same parameters take a gradient in every step;
            otherwise the code would be compiled again.
        ascent_precision: ``bfloat16`` evaluates the gradient that a perturbation follows under
            autocast. Methods that use that gradient for the descent too refuse it.
        ascent_fraction: Fraction of the batch that this gradient is taken of. Below 1 the closure
            needs a method ``on_fraction``, see ``closure_evaluator.FractionClosure``.
    """

    max_grad_norm: float | None = setting(None, "(0, inf]")
    clip_scope: Literal["joint", "module"] = "joint"
    on_nonfinite: Literal["raise", "skip"] = "raise"
    same_rng: bool = True
    frozen_batchnorm: bool = True
    micro_batches: Literal["replay", "each"] = "replay"
    sync: Literal["none", "local", "global"] = "none"
    compiled: bool = False
    ascent_precision: Literal["float32", "bfloat16"] = "float32"
    ascent_fraction: float = setting(1.0, "(0, 1]")


OPTION_NAMES = tuple(StepOptions.__dataclass_fields__)
"""Names of all step options."""
