r"""SWA: act and evaluate with the plain mean of weights along the tail of training.

.. math::
    \bar w = \frac{1}{n} \sum_{i=1}^{n} w_{t_0 + 1 + (i - 1) c}

with the weights w_t after t steps: the first that count are those after the first step beyond t_0,
then every c-th; before, the weights are their own average. Learning is that of the base, which may
be any optimizer of the registry.

How to choose the start:
    After the rate is low and steady, such as three quarters into the run; ``every`` about an epoch.

References:
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018,
    arXiv:1803.05407, Algorithm 1.

Deviations from the paper:
    The learning rate is the user's schedule, not a cyclic one. Running statistics of BatchNorm are
    not recomputed. The default start and interval are ours.
"""

from dataclasses import dataclass
from typing import Unpack

from mbrl_flat.errors import UserError
from mbrl_flat.optim.averaging import Averaging
from mbrl_flat.optim.base import BaseFactory, FlatOptimizer, Params, StepOptions
from mbrl_flat.optim.registry import register


@dataclass(frozen=True, kw_only=True)
class TailWeight:
    """``1 / n`` at the n-th weights that are taken, 0 in between, 1 before the tail."""

    start: int
    every: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.every < 1:
            raise UserError(
                f"swa needs start of at least 0 and every of at least 1, got {self.start} and "
                f"{self.every}."
            )

    def __call__(self, step: int) -> float:
        """Weight of the weights after step t, counted from 0."""
        beyond = step - self.start
        if beyond <= 0:
            return 1.0
        return 0.0 if beyond % self.every else 1.0 / (beyond // self.every + 1)


@register("swa", paper="arXiv:1803.05407", evaluations=1, memory=1, neutral={"start": 10})
def swa(
    params: Params,
    *,
    base: BaseFactory,
    start: int = 10_000,
    every: int = 100,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """Average every ``every`` steps after ``start``; see the module for the equation."""
    return Averaging(params, base=base, weight=TailWeight(start=start, every=every), **settings)
