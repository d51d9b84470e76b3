"""STORM: its world model, and the actor-critic that imagination agents share.

References:
    Zhang et al., "STORM: Efficient Stochastic Transformer based World Models for Reinforcement
    Learning", NeurIPS 2023, arXiv:2310.09615.

Deviations from the paper:
    Lambda-returns bootstrap with the value of the next state; the published code took that of
    the current one. Actor and critic learn at the states that the model was trained on.
"""

from functools import partial

import torch

from mbrl_flat.agents.actor_critic import ActorCritic, BoundedOptimizer
from mbrl_flat.agents.actors import make_actor
from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.agents.storm.networks import head
from mbrl_flat.agents.storm.world_model import WorldModel
from mbrl_flat.errors import UserError
from mbrl_flat.models.functional import TwoHot
from mbrl_flat.optim.base import OptimizerFactory
from mbrl_flat.specs import Discrete, EnvSpec


def make(
    spec: EnvSpec,
    *,
    config: STORMConfig,
    optimizer: OptimizerFactory,
    device: torch.device,
    compile: bool = False,
) -> ImaginationAgent:
    """Build the agent.

    Args:
        spec: The environment's shapes: one image, discrete actions.
        config: Hyperparameters.
        optimizer: Makes the world model's optimizer from its parameter groups.
        device: Where everything lives.
        compile: Compile the world-model loss.

    Returns:
        The agent.

    Raises:
        UserError: If the actions are continuous.
    """
    if not isinstance(spec.action, Discrete):
        raise UserError(
            f"agent=storm chooses among discrete actions, and this task has {spec.action.size} "
            f"continuous ones; take agent=twister or agent=dreamerv3."
        )
    model = WorldModel(spec, config).to(device)
    bins = TwoHot(num_bins=config.num_bins, low=-config.bin_limit, high=config.bin_limit)
    layers = [config.hidden] * 2
    actor = make_actor(spec.action, partial(head, model.feature_size, layers), mix=0.0)
    critic = head(model.feature_size, layers, config.num_bins)
    behaviour = ActorCritic(actor, critic, bins, config.actor_critic).to(device)
    adam = partial(torch.optim.Adam, lr=config.behaviour_lr, eps=config.behaviour_eps)
    bounded = BoundedOptimizer([actor, critic], adam, max_grad_norm=config.behaviour_grad_clip)
    return ImaginationAgent(
        "storm",
        spec,
        model=model,
        actor_critic=behaviour,
        optimizers={"behaviour": bounded},
        config=config.imagination,
        optimizer=optimizer,
        device=device,
        compile=compile,
        batch_coupling="the BatchNorm and the free nats of its loss",
    )
