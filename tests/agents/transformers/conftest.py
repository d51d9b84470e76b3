"""Small STORM and TWISTER agents, and batches of pictures that move."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mbrl_flat.agents.imagination_config import ImaginationConfig
from mbrl_flat.agents.storm import agent as storm
from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.agents.twister import agent as twister
from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.data.batch import Batch
from mbrl_flat.models.transformer import TransformerConfig
from mbrl_flat.optim import make_optimizer
from mbrl_flat.specs import Discrete, EnvSpec

LENGTH = 7
TWISTER = TWISTERConfig(
    conv_width=4,
    hidden=16,
    latent_groups=4,
    latent_classes=4,
    contrastive_steps=3,
    transformer=TransformerConfig(
        size=16, num_layers=2, num_heads=2, feedforward=32, left_context=3
    ),
    imagination=ImaginationConfig(
        batch_size=3, sequence_length=LENGTH, horizon=4, max_grad_norm=1000.0
    ),
)
STORM = STORMConfig(
    conv_width=4,
    hidden=16,
    latent_groups=4,
    latent_classes=4,
    context=3,
    act_context=4,
    transformer=TransformerConfig(
        size=16,
        num_layers=2,
        num_heads=2,
        feedforward=32,
        left_context=None,
        relative=False,
    ),
    imagination=ImaginationConfig(
        batch_size=3, sequence_length=LENGTH, horizon=4, max_grad_norm=1000.0
    ),
)
AGENTS = {"storm": (storm.make, STORM), "twister": (twister.make, TWISTER)}


@pytest.fixture(params=sorted(AGENTS))
def name(request):
    """Each of the two agents."""
    return request.param


@pytest.fixture
def spec():
    return EnvSpec(obs={"image": (3, 16, 16)}, action=Discrete(num=3), episode_length=50)


@pytest.fixture
def make_agent(spec):
    """``make_agent(name, optimizer="adam", settings={}, task=spec, **changes_of_the_config)``."""

    def make(name, optimizer="adam", settings=None, task=spec, **changes):
        build, config = AGENTS[name]
        torch.manual_seed(0)

        def factory(groups, *, max_grad_norm=None):
            made = partial(make_optimizer, optimizer, groups, lr=1e-3, **(settings or {}))
            return made(max_grad_norm=max_grad_norm)

        config = replace(config, **changes)
        return build(task, config=config, optimizer=factory, device=torch.device("cpu"))

    return make


@pytest.fixture
def make_batch():
    """``make_batch(num=3, begins=())``: episodes begin at each ``(row, step)``."""

    def make(num=3, begins=(), seed=1, length=LENGTH):
        generator = torch.Generator().manual_seed(seed)
        shape = (num, length + 1, 3, 16, 16)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        choices = torch.randint(0, 3, (num, length), generator=generator)
        action = torch.nn.functional.one_hot(choices, 3).float()
        reward = torch.randn(num, length, generator=generator)
        terminated = torch.zeros(num, length)
        is_first = torch.zeros(num, length + 1, dtype=torch.bool)
        for row, step in begins:
            is_first[row, step] = True
            action[row, step - 1], reward[row, step - 1] = 0.0, 0.0
            terminated[row, step - 2] = 1.0
        return Batch(
            obs={"image": images},
            action=action,
            reward=reward,
            terminated=terminated,
            is_first=is_first,
        )

    return make
