"""TWISTER: its world model, and the actor-critic that imagination agents share.

References:
    Burchi & Timofte, "Learning Transformer-based World Models with Contrastive Predictive
    Coding", ICLR 2025, arXiv:2503.04416.
"""

from functools import partial

import torch

from mbrl_flat.agents.actor_critic import ActorCritic, BoundedOptimizer
from mbrl_flat.agents.actors import make_actor
from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.agents.twister.networks import head, initialise
from mbrl_flat.agents.twister.world_model import WorldModel
from mbrl_flat.models.functional import TwoHot
from mbrl_flat.optim.base import OptimizerFactory
from mbrl_flat.specs import EnvSpec


def make(
    spec: EnvSpec,
    *,
    config: TWISTERConfig,
    optimizer: OptimizerFactory,
    device: torch.device,
    compile: bool = False,
) -> ImaginationAgent:
    """Build the agent.

    Args:
        spec: The environment's shapes: one image, discrete or continuous actions.
        config: Hyperparameters.
        optimizer: Makes the world model's optimizer from its parameter groups.
        device: Where everything lives.
        compile: Compile the world-model loss.

    Returns:
        The agent.
    """
    model = WorldModel(spec, config).to(device)
    bins = TwoHot(num_bins=config.num_bins, low=-config.bin_limit, high=config.bin_limit)
    actor = make_actor(
        spec.action, lambda num: head(model.feature_size, num, config), mix=config.mix
    )
    critic = head(model.feature_size, config.num_bins, config)
    initialise(critic, zero_last=[critic])
    behaviour = ActorCritic(actor, critic, bins, config.actor_critic).to(device)
    adam = partial(torch.optim.Adam, lr=config.behaviour_lr, eps=config.behaviour_eps)
    clip = config.behaviour_grad_clip
    return ImaginationAgent(
        "twister",
        spec,
        model=model,
        actor_critic=behaviour,
        optimizers={
            "actor": BoundedOptimizer([actor], adam, max_grad_norm=clip),
            "critic": BoundedOptimizer([critic], adam, max_grad_norm=clip),
        },
        config=config.imagination,
        optimizer=optimizer,
        device=device,
        compile=compile,
        batch_coupling="its contrastive loss",
    )
