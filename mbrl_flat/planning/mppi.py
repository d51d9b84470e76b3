r"""Model predictive path integral control (MPPI) with elites and a warm start.

The planner knows no model: it maximises any function of action sequences. It plans for N states
at once, and each gets what it would get alone with the same noise. What it remembers from step
to step, the mean of the last plan, goes in and comes out as a value.

References:
    Williams et al., "Model Predictive Path Integral Control using Covariance Variable Importance
    Sampling", 2015, arXiv:1509.01149; Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828,
    Section 3.3 and the table of hyperparameters, whose values are the defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mbrl_flat.errors import UserError
from mbrl_flat.settings import CheckedSettings, setting

Objective = Callable[[Tensor, int], Tensor]
"""Values ``[N, S]`` of action sequences ``[N, S, H, A]`` in the given iteration."""


@dataclass(frozen=True, kw_only=True)
class MPPIConfig(CheckedSettings):
    """MPPI hyperparameters.

    Attributes:
        horizon: Length H of the plans in agent steps.
        num_samples: Sequences evaluated in an iteration, prior sequences included.
        num_prior: Sequences that come from the policy prior; they stay through all iterations.
        num_elites: Best sequences, the only ones that shape the next iteration.
        iterations: Rounds of sampling.
        temperature: Inverse temperature of the elites' weights (the published name and value).
        min_std: Lower bound of the sampling noise.
        max_std: Upper bound, and the noise of the first iteration.
    """

    horizon: int = setting(3, "[1, inf)")
    num_samples: int = 512
    num_prior: int = setting(24, "[0, inf)")
    num_elites: int = setting(64, "[1, inf)")
    iterations: int = setting(6, "[1, inf)")
    temperature: float = setting(0.5, "(0, inf)")
    min_std: float = setting(0.05, "(0, inf)")
    max_std: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not max(self.num_prior + 1, self.num_elites) <= self.num_samples:
            raise UserError(
                f"num_prior must be below num_samples={self.num_samples} and num_elites at most as "
                f"many, got {self.num_prior} and {self.num_elites}."
            )
        if not self.min_std <= self.max_std:
            raise UserError(f"min_std must be at most max_std={self.max_std}, got {self.min_std}.")


class Noise(NamedTuple):
    """Every random draw of one call, so that a call is a function of its arguments."""

    samples: Tensor
    """Standard normal ``[N, iterations, S - P, H, A]``."""
    choice: Tensor
    """Standard Gumbel ``[N, num_elites]``: whose action is taken."""
    exploration: Tensor
    """Standard normal ``[N, A]``."""


def draw_noise(
    config: MPPIConfig, num: int, action_size: int, generator: torch.Generator | None
) -> Noise:
    """Draw the noise of a call for ``num`` states, on the generator's device or the CPU."""
    sampled = config.num_samples - config.num_prior
    shape = (num, config.iterations, sampled, config.horizon, action_size)
    device = None if generator is None else generator.device
    uniform = torch.rand(num, config.num_elites, generator=generator, device=device)
    return Noise(
        samples=torch.randn(shape, generator=generator, device=device),
        choice=-torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7))),
        exploration=torch.randn(num, action_size, generator=generator, device=device),
    )


class Plan(NamedTuple):
    """What planning returns for N states."""

    action: Tensor
    """First action of one elite, raw (not yet clamped or made discrete), ``[N, A]``."""
    mean: Tensor
    """Mean of the last iteration, the warm start of the next call, ``[N, H, A]``."""
    value: Tensor
    """Weighted value of the elites of the last iteration, ``[N]``."""


def mppi(
    objective: Objective,
    prior: Tensor,
    previous_mean: Tensor,
    noise: Noise,
    config: MPPIConfig,
    *,
    explore: bool,
) -> Plan:
    r"""Maximise ``objective`` over action sequences in the box [-1, 1].

    Each iteration samples ``clamp(mean + std * noise)``, keeps the best sequences as elites, and
    refits

    .. math::
        w_i \propto \exp(\tau (v_i - v_{max})), \quad \mu = \sum_i w_i a_i, \quad
        \sigma^2 = \sum_i w_i (a_i - \mu)^2

    with :math:`\sigma` clamped to ``[min_std, max_std]``. A value that is not a number counts as
    zero. At the end one elite is drawn by its weight (Gumbel-max), in evaluation too.

    Args:
        objective: Values ``[N, S]`` of sequences ``[N, S, H, A]``.
        prior: Sequences of the policy prior ``[N, P, H, A]``.
        previous_mean: ``Plan.mean`` of the step before ``[N, H, A]``; zeros at an episode's start.
        noise: The draws of this call.
        config: Horizon, samples, elites, iterations and temperature.
        explore: Add noise of the first step's standard deviation to the action.

    Returns:
        Action, mean and value for each state.
    """
    mean = torch.cat([previous_mean[:, 1:], torch.zeros_like(previous_mean[:, :1])], 1)
    std = torch.full_like(mean, config.max_std)

    def refit(iteration: int, mean: Tensor, std: Tensor) -> Fit:
        sampled = mean[:, None] + std[:, None] * noise.samples[:, iteration]
        actions = torch.cat([prior, sampled.clamp_(-1.0, 1.0)], 1)
        value = torch.nan_to_num(objective(actions, iteration), 0.0)
        return _fit_elites(actions, value, config)

    fit = refit(0, mean, std)
    for iteration in range(1, config.iterations):
        fit = refit(iteration, fit.mean, fit.std)

    return fit.draw_plan(noise, explore=explore)


class Fit(NamedTuple):
    """A diagonal Gaussian over plans and the elites that it was fitted to."""

    mean: Tensor
    """``[N, H, A]``."""
    std: Tensor
    """``[N, H, A]``."""
    elites: Tensor
    """Best first, ``[N, num_elites, H, A]``."""
    value: Tensor
    """Of each elite ``[N, num_elites]``."""
    weight: Tensor
    """Of each elite ``[N, num_elites]``; they sum to 1."""

    def draw_plan(self, noise: Noise, *, explore: bool) -> Plan:
        """Draw one elite by its weight; see ``mppi``."""
        chosen = (self.weight.log() + noise.choice).argmax(1)
        action = self.elites[torch.arange(len(chosen), device=chosen.device), chosen, 0]
        if explore:
            action = action + self.std[:, 0] * noise.exploration
        return Plan(action, self.mean, (self.weight * self.value).sum(1))


def _fit_elites(actions: Tensor, value: Tensor, config: MPPIConfig) -> Fit:
    """Weight the best of ``actions`` ``[N, S, H, A]`` by ``value`` ``[N, S]`` and fit them."""
    elite_value, index = value.topk(config.num_elites, dim=1)
    index = index[:, :, None, None].expand(-1, -1, *actions.shape[2:])
    elites = actions.gather(1, index)
    weight = torch.softmax(config.temperature * elite_value, 1)
    share = weight[:, :, None, None]
    mean = (share * elites).sum(1)
    std = (share * (elites - mean[:, None]).square()).sum(1).sqrt()
    return Fit(mean, std.clamp(config.min_std, config.max_std), elites, elite_value, weight)
