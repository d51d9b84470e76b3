"""STORM: its world model, and the actor-critic that imagination agents share.

References:
    Zhang et al., "STORM: Efficient Stochastic Transformer based World Models for Reinforcement
    Learning", NeurIPS 2023, arXiv:2310.09615.

Deviations from the paper:
    Lambda-returns bootstrap with the value of the next state; the published code took that of
    the current one. Actor and critic learn at the states that the model was trained on.
"""

import torch

from mbrl_flat.agents.actors import make_actor
from mbrl_flat.agents.imagination_agent import ImaginationAgent
from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.agents.storm.world_model import WorldModel, head
from mbrl_flat.agents.token_agent import make_token_agent
from mbrl_flat.errors import UserError
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
        config: Sizes, coefficients and rates; see ``STORMConfig``.
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
    model = WorldModel(spec, config)
    layers = [config.hidden] * 2
    return make_token_agent(
        spec,
        model,
        make_actor(spec.action, lambda num: head(model.feature_size, layers, num), mix=0.0),
        head(model.feature_size, layers, config.num_bins),
        clipped_apart=False,
        optimizer=optimizer,
        device=device,
        compile=compile,
        batch_coupling="the BatchNorm and the free nats of its loss",
    )
