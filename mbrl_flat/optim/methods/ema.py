r"""EMA: act and evaluate with an exponential moving average of the weights.

.. math::
    \bar w_t = \beta_t \bar w_{t-1} + (1 - \beta_t) w_t, \qquad \bar w_0 = w_0, \qquad
    \beta_t = \min\!\left(\beta, \frac{1 + t}{10 + t}\right)

Learning is that of the base, which may be any optimizer of the registry.

How to choose the decay:
    The average spans about 1 / (1 - decay) steps: 0.999 to 0.9999 for long runs, less where the
    weights still travel.

References:
    Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; for networks
    Izmailov et al., arXiv:1803.05407. The warm-up of beta is TensorFlow's.

Deviations from the paper:
    None. The default beta of 0.999 is common usage.
"""

from mbrl_flat.optim.averaging import Averaging
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting


@register("ema", paper="arXiv:1803.05407", evaluations=1, memory=1, neutral={"decay": 0.9})
class EMA(Averaging):
    """Average exponentially.

    Attributes:
        decay: The beta of the equation: share of the average that a step keeps.
    """

    decay: float = setting(0.999, "[0, 1)")

    def weight(self, step: int) -> float:
        """``1 - beta_t`` for the weights after step t, counted from 0."""
        return 1.0 if step == 0 else 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
