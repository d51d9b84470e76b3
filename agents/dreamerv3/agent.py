"""DreamerV3: its world model and networks in the shared imagination agent.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, Nature 2025.

Deviations from the paper:
    The world model has an optimizer of its own, the one under study; actor and critic keep LaProp
    with adaptive clipping. Both LaProp and its clipping work tensor by tensor, so with
    ``optimizer=laprop`` this is the published joint optimizer but for its warm-up, for imagination,
    which follows the model's step here, and for one matrix of the core that is two tensors here.
    See also ``world_model.py``.
"""

from functools import partial

import torch
from torch import nn

from mbrl_flat.agents.actor_critic import ActorCritic, BoundedOptimizer
from mbrl_flat.agents.actors import make_actor
from mbrl_flat.agents.dreamerv3.config import DreamerV3Config
from mbrl_flat.agents.dreamerv3.rssm import NORM
from mbrl_flat.agents.dreamerv3.world_model import WorldModel, zeros_
from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.models.perceptron import Perceptron, fan_in_normal_
from mbrl_flat.optim.base import OptimizerFactory
from mbrl_flat.optim.methods.laprop import LaProp
from mbrl_flat.specs import EnvSpec


def dreamerv3(
    spec: EnvSpec,
    *,
    config: DreamerV3Config,
    optimizer: OptimizerFactory,
    device: torch.device,
    compile: bool = False,
) -> ImaginationAgent:
    """Build the agent.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``DreamerV3Config``.
        optimizer: Makes the world model's optimizer from its parameter groups.
        device: Where everything lives.
        compile: Compile the world-model loss with ``torch.compile``.

    Returns:
        The agent.
    """
    model = WorldModel(spec, config, discount=config.actor_critic.discount).to(device)
    units = [config.dims["units"]] * 3
    small = partial(fan_in_normal_, scale=0.01)

    def policy_network(num: int) -> nn.Module:
        return Perceptron(model.feature_size, units, num, norm=NORM, out_init=small)

    mix = config.unimix if config.actor_unimix is None else config.actor_unimix
    actor = make_actor(spec.action, policy_network, mix=mix)
    critic = Perceptron(model.feature_size, units, config.num_bins, norm=NORM, out_init=zeros_)
    behaviour = ActorCritic(actor, critic, model.bins, config.actor_critic).to(device)
    make = partial(LaProp, lr=config.behaviour_lr)
    return ImaginationAgent(
        "dreamerv3",
        spec,
        model=model,
        actor_critic=behaviour,
        optimizers={"behaviour": BoundedOptimizer([actor, critic], make, max_grad_norm=None)},
        config=config.imagination,
        optimizer=optimizer,
        device=device,
        compile=compile,
    )
