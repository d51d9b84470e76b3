"""The YAML of STORM and TWISTER: published defaults, and presets that build."""

from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.agents.twister.config import TWISTERConfig
from mbrl_flat.cli import commands as cli
from mbrl_flat.optim import make_optimizer
from mbrl_flat.specs import Discrete, EnvSpec

CONFIGS = {"storm": STORMConfig(), "twister": TWISTERConfig()}


def agent_factory(name, *overrides):
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        cfg = compose("train", overrides=[f"agent={name}", "env=dummy", *overrides])
    _, parts = cli.build_run(cfg)
    return parts.agent


def test_the_yaml_repeats_the_defaults_of_the_dataclass(name):
    assert agent_factory(name, "preset=default").keywords["config"] == CONFIGS[name]


@pytest.mark.parametrize("preset", ["cpu", "debug"])
@pytest.mark.parametrize("size", [16, 64])
def test_small_presets_build_for_small_games_and_for_atari(name, preset, size):
    spec = EnvSpec(obs={"image": (4, size, size)}, action=Discrete(num=3), episode_length=9)

    agent = agent_factory(name, f"preset={preset}")(
        spec, optimizer=partial(make_optimizer, "adam", lr=1e-4), device=torch.device("cpu")
    )

    weights = sum(p.numel() for p in agent.model.parameters())
    assert weights < 8_000_000


def test_the_published_storm_has_the_published_number_of_weights():
    """16.5 M for the world model and 3.4 M for actor, critic and its slow copy."""
    spec = EnvSpec(obs={"image": (3, 64, 64)}, action=Discrete(num=6), episode_length=9)

    agent = agent_factory("storm")(
        spec, optimizer=partial(make_optimizer, "adam", lr=1e-4), device=torch.device("cpu")
    )

    model = sum(p.numel() for p in agent.model.parameters())
    behaviour = sum(p.numel() for p in agent.actor_critic.parameters())
    assert (round(model / 1e6, 1), round(behaviour / 1e6, 1)) == (16.5, 3.4)
