"""Every agent of the catalogue that imagines, at its smallest size."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from mbrl_flat.cli import main as cli
from mbrl_flat.data.batch import Batch
from mbrl_flat.optim import make_optimizer
from mbrl_flat.specs import Discrete, EnvSpec

CATALOGUE = Path(cli.__file__).parents[2] / "configs" / "agent"
AGENTS = sorted(
    path.stem for path in CATALOGUE.glob("*.yaml") if path.stem not in ("tdmpc2", "random")
)
"""A new agent joins by its name."""
CONTROLLERS = [name for name in AGENTS if name != "storm"]
"""Agents whose actions may be continuous."""

IMAGES = EnvSpec(
    obs={"image": (3, 16, 16)},
    action=Discrete(num=4),
    episode_length=50,
    images=frozenset({"image"}),
)


@cache
def composed(name, overrides):
    """The configuration of a run; composing it takes longer than building the agent."""
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        return compose("train", overrides=[f"agent={name}", "preset=debug", *overrides])


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", AGENTS)
    if "controller" in metafunc.fixturenames:
        metafunc.parametrize("controller", CONTROLLERS)


@pytest.fixture
def build():
    """Build an agent by name with freshly seeded weights; the rest are optimizer settings."""

    def make(name, spec=IMAGES, optimizer="adam", seed=0, overrides=(), **settings):
        cfg = composed(name, tuple(overrides))
        torch.manual_seed(seed)

        def factory(groups, *, max_grad_norm=None):
            settings.setdefault("lr", 1e-3)
            return make_optimizer(optimizer, groups, max_grad_norm=max_grad_norm, **settings)

        return instantiate(cfg.agent)(spec, optimizer=factory, device=torch.device("cpu"))

    return make


@pytest.fixture
def make_batch():
    """Draw a random batch of the shapes that an agent learns from."""

    def make(agent, seed=0, size=None, length=None):
        g = torch.Generator().manual_seed(seed)
        size, length = size or agent.batch_size, length or agent.sequence_length
        spec = agent.spec
        obs = {
            name: torch.randint(256, (size, length + 1, *shape), generator=g, dtype=torch.uint8)
            if name in spec.images
            else torch.randn(size, length + 1, *shape, generator=g)
            for name, shape in spec.obs.items()
        }
        if isinstance(spec.action, Discrete):
            choice = torch.randint(spec.action.num, (size, length), generator=g)
            action = torch.nn.functional.one_hot(choice, spec.action.num).float()
        else:
            action = torch.rand(size, length, spec.action.size, generator=g) * 2.0 - 1.0
        is_first = torch.zeros(size, length + 1, dtype=torch.bool)
        is_first[0, length // 2] = True
        terminated = torch.zeros(size, length)
        terminated[-1, length // 3] = 1.0
        reward = torch.randn(size, length, generator=g)
        return Batch(
            obs=obs, action=action, reward=reward, terminated=terminated, is_first=is_first
        )

    return make
