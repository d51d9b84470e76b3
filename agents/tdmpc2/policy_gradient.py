"""The gradient by which the policy prior of TD-MPC2 learns, by torch or in two calls of C."""

import torch
from torch import Tensor

from mbrl_flat.agents.tdmpc2 import fused_policy
from mbrl_flat.agents.tdmpc2.policy import Policy, PolicySample, RunningScale, policy_loss
from mbrl_flat.agents.tdmpc2.world_model import WorldModel


def policy_gradient(
    model: WorldModel, policy: Policy, latents: Tensor, scale: RunningScale
) -> tuple[PolicySample, Tensor]:
    """Move the scale, and give the policy's parameters the gradient of ``policy_loss``.

    Args:
        model: Its Q-functions value the actions; they stay as they are.
        policy: The policy.
        latents: ``[B, T, D]``.
        scale: Of the values.

    Returns:
        What the policy drew, and the loss.
    """
    heads = model.draw_heads(latents.device)
    if fused_policy.usable(model, policy, latents):
        return _fused(model, policy, latents, heads, scale)
    model.q.requires_grad_(False)
    sample = policy(latents)
    q = model.q_values(latents, sample.action, heads).mean(0)
    scale.update(q[:, 0])
    loss = policy_loss(sample, q, scale.value, model.config)
    policy.zero_grad()
    loss.backward()
    model.q.requires_grad_(True)
    return sample, loss


@torch.no_grad()
def _fused(
    model: WorldModel, policy: Policy, latents: Tensor, heads: Tensor, scale: RunningScale
) -> tuple[PolicySample, Tensor]:
    found = fused_policy.FusedPolicy(model, policy, latents, heads)
    scale.update(found.value[:, 0])
    loss = policy_loss(found.sample, found.value, scale.value, model.config)
    found.backward(model.config.entropy_coef, scale.value)
    return found.sample, loss
