"""How STORM and TWISTER join a world model with an actor-critic."""

from functools import partial
from typing import Any, cast

import torch
from torch import nn

from mbrl_flat.agents.actor_critic import ActorCritic, BoundedOptimizer
from mbrl_flat.agents.actors import CategoricalActor, GaussianActor
from mbrl_flat.agents.imagination import ImaginationModel
from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.agents.token_world_model import TokenWorldModel
from mbrl_flat.specs import EnvSpec


def make_token_agent(
    spec: EnvSpec,
    model: TokenWorldModel,
    actor: CategoricalActor | GaussianActor,
    critic: nn.Module,
    *,
    clipped_apart: bool,
    device: torch.device,
    **settings: Any,
) -> ImaginationAgent:
    """Join a world model with actor, critic and their Adam.

    Args:
        spec: The environment's shapes.
        model: The world model.
        actor: The policy network, from latents to a distribution over actions.
        critic: The value network, from latents to two-hot logits.
        clipped_apart: Whether actor and critic have a bound on the gradient norm each.
        device: Where everything lives.
        settings: Further arguments of ``ImaginationAgent``.

    Returns:
        The agent.
    """
    config = model.config
    behaviour = ActorCritic(actor, critic, config.bins, config.actor_critic).to(device)
    adam = partial(torch.optim.Adam, lr=config.behaviour_lr, eps=config.behaviour_eps)
    joint = {"behaviour": [actor, critic]}
    groups = {"actor": [actor], "critic": [critic]} if clipped_apart else joint
    bound = config.behaviour_grad_clip
    return ImaginationAgent(
        model.style.agent,
        spec,
        model=cast(ImaginationModel, model.to(device)),
        actor_critic=behaviour,
        optimizers={
            name: BoundedOptimizer(modules, adam, max_grad_norm=bound)
            for name, modules in groups.items()
        },
        config=config.imagination,
        device=device,
        **settings,
    )
