"""Every learning agent of the registry, at its debug size."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

import mbrl_flat.cli.commands  # noqa: F401 - registers the schemas
from mbrl_flat.optim import make_optimizer
from mbrl_flat.specs import Continuous, Discrete, EnvSpec

CATALOGUE = Path(__file__).parents[2] / "configs" / "agent"
IMAGES = EnvSpec(
    obs={"image": (3, 16, 16)},
    action=Discrete(num=4),
    episode_length=50,
    images=frozenset({"image"}),
)
VECTORS = EnvSpec(obs={"state": (3,)}, action=Continuous(dim=2), episode_length=50)


def pytest_generate_tests(metafunc):
    if "every_agent" in metafunc.fixturenames:
        names = sorted(path.stem for path in CATALOGUE.glob("*.yaml") if path.stem != "random")
        metafunc.parametrize("every_agent", names)


@pytest.fixture(scope="session")
def debug_agent():
    """An agent and the shapes that it was built for."""

    def build(name, method="adam", **options):
        GlobalHydra.instance().clear()
        with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
            cfg = compose("train", overrides=[f"agent={name}", "preset=debug"])
        GlobalHydra.instance().clear()

        def factory(groups, *, max_grad_norm=None):
            return make_optimizer(method, groups, max_grad_norm=max_grad_norm, lr=1e-3, **options)

        torch.manual_seed(0)
        spec = VECTORS if name == "tdmpc2" else IMAGES
        return instantiate(cfg.agent)(spec, optimizer=factory, device=torch.device("cpu")), spec

    return build
