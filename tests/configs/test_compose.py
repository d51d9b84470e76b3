"""The configuration folder is the catalogue: everything in it composes, and is built."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from agents.tdmpc2.config import TDMPC2Config
from mbrl_flat import cli
from mbrl_flat.optim import OPTIMIZERS

CONFIGS = Path(cli.__file__).parent.parent / "configs"


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def composed(*overrides: str):
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        return compose("train", overrides=list(overrides))


@pytest.mark.parametrize("optimizer", names("optimizer"))
@pytest.mark.parametrize("preset", names("preset"))
def test_every_optimizer_composes_with_every_preset(optimizer, preset):
    cfg = composed(f"optimizer={optimizer}", f"preset={preset}", "env=dummy")
    assert cfg.preset == preset
    cli._run_config(cfg)
    OmegaConf.to_yaml(cfg, resolve=True)


@pytest.mark.parametrize("base", names("optimizer/base"))
def test_every_base_composes(base):
    assert composed("optimizer=sam", f"optimizer/base={base}").optimizer.base._partial_


@pytest.mark.parametrize("env", names("env"))
def test_every_environment_composes(env):
    assert composed(f"env={env}").env._target_.startswith("envs.")


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_composes_and_says_what_it_is(experiment):
    cli._run_config(composed(f"experiment={experiment}"))
    assert "# " in (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()


def test_the_catalogue_and_the_registry_name_the_same_optimizers():
    assert set(names("optimizer")) == set(OPTIMIZERS)


def test_the_yaml_of_the_agent_repeats_the_defaults_of_its_dataclass():
    parts = cli._parts(composed("env=dummy"))
    assert parts.agent.keywords["config"] == TDMPC2Config()
