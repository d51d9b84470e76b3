r"""From sharpness to control: the terms of the chain of bounds, each by its name.

With probability ``1 - delta`` over ``n`` independent samples, for ``k`` weights of norm ``|w|``,

.. math::
    L_D \le \underbrace{L_S}_{empirical} + \underbrace{S_\rho}_{sharpness} +
    \underbrace{\sqrt{\frac{k \log(1 + \frac{|w|^2}{\rho^2} (1 + \sqrt{\log n / k})^2)
    + 4 \log(n / \delta)}{n - 1}}}_{complexity}

For a model that predicts a point, with mean reward error ``e_r`` and a value function of Lipschitz
constant ``Lip(V)``,

.. math::
    |V - \hat V| \le \frac{e_r + \gamma\, \mathrm{Lip}(V)\, E|z' - \hat z'|}{1 - \gamma}

The terms show what moves with what. They are no certificate, because

* subsequences of a replay are neither independent nor drawn from the policy that is judged (a
  factor for the change of distribution is missing);
* for the millions of weights of a world model the complexity term is far above any loss;
* the ``O(log(n + k))`` part of the complexity is left out, and the bound presumes that random
  perturbations do not lower the population loss.

References:
    Foret et al., ICLR 2021, arXiv:2010.01412, Theorem 2 (appendix); Asadi et al., "Lipschitz
    Continuity in Model-Based Reinforcement Learning", ICML 2018, arXiv:1804.07193.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossBound:
    """Upper bound of the population loss.

    Attributes:
        empirical: Mean loss ``L_S`` of the sample.
        sharpness: ``S_rho``, a gap within the radius.
        complexity: What the number and size of the weights cost.
    """

    empirical: float
    sharpness: float
    complexity: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.empirical + self.sharpness + self.complexity


def loss_bound(
    *,
    loss: float,
    gap: float,
    rho: float,
    param_norm: float,
    num_params: int,
    num_samples: int,
    delta: float = 0.05,
) -> LossBound:
    """Compute the terms of the PAC-Bayes bound.

    Args:
        loss: Empirical loss ``L_S``.
        gap: Worst gap within ``rho``; the one-step SAM gap is a lower bound of it.
        rho: Radius of the perturbation of the weights, at least 0.
        param_norm: Euclidean norm ``|w|`` of all weights.
        num_params: Number ``k`` of weights.
        num_samples: Number ``n`` of examples in the sample, at least 2.
        delta: Probability that the bound fails.

    Returns:
        The terms.

    Raises:
        ValueError: If ``rho`` or ``num_params`` is not positive, ``num_samples`` is less than 2
            or ``delta`` is not within (0, 1).
    """
    if rho <= 0.0 or num_params < 1:
        raise ValueError(f"rho and num_params must be positive, got {rho} and {num_params}.")
    if num_samples < 2 or not 0.0 < delta < 1.0:
        raise ValueError(
            f"num_samples must be at least 2 and delta within (0, 1), got {num_samples}, {delta}."
        )
    spread = (1.0 + math.sqrt(math.log(num_samples) / num_params)) ** 2
    size = num_params * math.log1p(spread * (param_norm / rho) ** 2)
    confidence = 4.0 * math.log(num_samples / delta)
    complexity = math.sqrt((size + confidence) / (num_samples - 1))
    return LossBound(empirical=loss, sharpness=gap, complexity=complexity)


@dataclass(frozen=True, kw_only=True)
class ValueGap:
    """Upper bound of the error that a model makes in a policy's value.

    Attributes:
        reward: Share of the reward error.
        transition: Share of the transition error.
    """

    reward: float
    transition: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.reward + self.transition

    @property
    def performance_gap(self) -> float:
        """What planning in the model costs at most, beyond the planner's own suboptimality."""
        return 2.0 * self.total


def lipschitz_value_gap(
    *, reward_error: float, latent_error: float, lipschitz: float, discount: float
) -> ValueGap:
    """Compute the terms for a model that predicts a point, not a distribution.

    Args:
        reward_error: Mean absolute error of the reward.
        latent_error: Mean distance of predicted and actual next latents.
        lipschitz: Lipschitz constant of the value in the latent.
        discount: Factor ``gamma`` per step, in [0, 1].

    Returns:
        ``e_r / (1 - gamma)`` and ``gamma Lip(V) E|z' - zhat'| / (1 - gamma)``.
    """
    left = 1.0 - discount
    return ValueGap(
        reward=reward_error / left, transition=discount * lipschitz * latent_error / left
    )
