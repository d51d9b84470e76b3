"""A plan of TD-MPC2 of any length, and the return that its model imagines for it."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from mbrl_flat.agents.tdmpc2.agent import TDMPC2
from mbrl_flat.agents.tdmpc2.planner import LatentPlanner
from mbrl_flat.interfaces import Observation
from mbrl_flat.optim.averaging import evaluation_params
from mbrl_flat.runtime.device import transfer


class ImaginedPlan(NamedTuple):
    """Plans for N observations."""

    action: Tensor
    """``[N, H, A]``, as the environment's spec sees actions."""
    value: Tensor
    """Imagined discounted rewards of the H actions and the value of where they lead ``[N]``."""


@torch.no_grad()
def imagine_plan(
    agent: TDMPC2,
    obs: Observation,
    generator: Generator,
    *,
    horizon: int,
    num_samples: int | None = None,
) -> ImaginedPlan:
    """Plan from observations, without a warm start, and follow the mean plan in the model.

    Args:
        agent: Whose model and policy; it stays as it is.
        obs: Observations by name, each ``[N, ...]``.
        generator: Source of the planner's noise, on the agent's device.
        horizon: Actions of the plan.
        num_samples: Sampled plans in an iteration; by default those of the agent.

    Returns:
        The plans.
    """
    config = replace(agent.planner.config, horizon=horizon)
    if num_samples is not None:
        elites = min(config.num_elites, num_samples)
        prior = min(config.num_prior, num_samples // 2)
        config = replace(config, num_samples=num_samples, num_elites=elites, num_prior=prior)
    planner = LatentPlanner(agent.model, agent.policy, config)
    with evaluation_params(agent.optimizer):
        latent = agent.model.encode({k: transfer(v, agent.device) for k, v in obs.items()})
        start = latent.new_zeros(latent.shape[0], horizon, agent.spec.action.size)
        action = agent.spec.action.project(planner(latent, start, generator, explore=False).mean)
        value, alive = latent.new_zeros(latent.shape[0]), torch.ones_like(latent[:, 0])
        for step in range(horizon):
            latent, reward, cont = agent.predict(latent, action[:, step])
            value = value + agent.discount**step * alive * reward
            alive = alive * cont
        value = value + agent.discount**horizon * alive * agent.value(latent)
    return ImaginedPlan(action.cpu(), value.cpu())
