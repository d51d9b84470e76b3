r"""SWA: act and evaluate with the plain mean of the weights of the last part of training.

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
    not estimated again. The default start and interval are ours.
"""

from mbrl_flat.optim.averaging import Averaging
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting


@register("swa", paper="arXiv:1803.05407", evaluations=1, memory=1, neutral={"start": 10})
class SWA(Averaging):
    """Average the weights of the tail.

    Attributes:
        start: Steps before the average begins.
        every: Steps between two weights that are averaged.
    """

    start: int = setting(10_000, "[0, inf)")
    every: int = setting(100, "[1, inf)")

    def weight(self, step: int) -> float:
        """``1 / n`` at the n-th weights that are taken, 0 in between, 1 before the tail."""
        beyond = step - self.start
        if beyond <= 0:
            return 1.0
        return 0.0 if beyond % self.every else 1.0 / (beyond // self.every + 1)
