"""TWISTER: its world model, and the actor-critic that imagination agents share.

References:
    Burchi & Timofte, "Learning Transformer-based World Models with Contrastive Predictive
    Coding", ICLR 2025, arXiv:2503.04416.
"""

import torch

from mbrl_flat.agents.actors import make_actor
from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.agents.token_agent import make_token_agent
from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.agents.twister.networks import head, initialise
from mbrl_flat.agents.twister.world_model import WorldModel
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
        config: Sizes, coefficients and rates; see ``TWISTERConfig``.
        optimizer: Makes the world model's optimizer from its parameter groups.
        device: Where everything lives.
        compile: Compile the world-model loss.

    Returns:
        The agent.
    """
    model = WorldModel(spec, config)
    size = model.feature_size
    actor = make_actor(spec.action, lambda num: head(size, num, config), mix=config.mix)
    critic = head(size, config.num_bins, config)
    initialise(critic, zero_last=[critic])
    return make_token_agent(
        spec,
        model,
        actor,
        critic,
        clipped_apart=True,
        optimizer=optimizer,
        device=device,
        compile=compile,
        batch_coupling="its contrastive loss",
    )
