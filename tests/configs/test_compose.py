"""The configuration folder is the catalogue: everything in it composes, and is built."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mbrl_flat.agents.dreamerv3.config import DreamerV3Config
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.cli import commands as cli
from mbrl_flat.optim import OPTIMIZERS
from mbrl_flat.studies.framework.runner import settings_of

CONFIGS = Path(cli.__file__).parents[2] / "configs"


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def composed(*overrides: str, command: str = "train"):
    GlobalHydra.instance().clear()
    with initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        return compose(command, overrides=list(overrides))


def is_study(experiment: str) -> bool:
    return "\nstudy:" in (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()


STUDIES = [name for name in names("experiment") if is_study(name)]
RECIPES = [name for name in names("experiment") if not is_study(name)]
PRESETS = [name for name in names("preset") if name not in ("ci", "data", "long", "policy")]


@pytest.mark.parametrize("optimizer", names("optimizer"))
@pytest.mark.parametrize("preset", PRESETS)
def test_every_optimizer_composes_with_every_preset(optimizer, preset):
    cfg = composed(f"optimizer={optimizer}", f"preset={preset}", "env=dummy")
    assert cfg.preset == preset
    cli.build_run(cfg)
    OmegaConf.to_yaml(cfg, resolve=True)


@pytest.mark.parametrize("base", names("optimizer/base"))
def test_every_base_composes(base):
    assert composed("optimizer=sam", f"optimizer/base={base}").optimizer.base._partial_


@pytest.mark.parametrize("env", names("env"))
def test_every_environment_composes(env):
    assert composed(f"env={env}").env._target_.startswith("mbrl_flat.envs.")


@pytest.mark.parametrize("experiment", RECIPES)
def test_every_experiment_composes_and_says_what_it_is(experiment):
    cli.build_run(composed(f"experiment={experiment}"))
    assert "# " in (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()


@pytest.mark.parametrize("benchmark", names("benchmark"))
def test_every_benchmark_composes_and_says_what_it_is(benchmark):
    cli.build_run(composed(f"benchmark={benchmark}"))
    assert "# " in (CONFIGS / "benchmark" / f"{benchmark}.yaml").read_text()


@pytest.mark.parametrize("variant", names("variant"))
def test_every_variant_composes_and_says_what_it_is(variant):
    cli.build_run(composed(f"+variant={variant}"))
    assert "# " in (CONFIGS / "variant" / f"{variant}.yaml").read_text()


@pytest.mark.parametrize("schedule", names("schedule"))
def test_a_schedule_is_what_a_preset_sets_in_an_experiment(schedule):
    experiment, _, preset = schedule.rpartition("_")
    values = OmegaConf.load(CONFIGS / "schedule" / f"{schedule}.yaml")

    cfg = composed(f"experiment={experiment}", f"preset={preset}")

    assert cfg.steps == values.steps


@pytest.mark.parametrize("agent", ["tdmpc2", "dreamerv3"])
def test_a_debug_run_on_the_control_suite_sees_the_end_of_several_episodes(agent):
    cfg = composed("env=dmc", "preset=debug", f"agent={agent}")

    assert 1000 // cfg.env.action_repeat <= cfg.seed_steps < cfg.steps
    assert composed("env=dmc", "preset=debug", "env.action_repeat=2").env.action_repeat == 2
    assert composed("env=dmc", "preset=cpu").env.action_repeat == 2


def test_the_catalogue_and_the_registry_name_the_same_optimizers():
    assert set(names("optimizer")) == set(OPTIMIZERS)


def test_the_yaml_of_the_agent_repeats_the_defaults_of_its_dataclass():
    _, parts = cli.build_run(composed("env=dummy"))
    assert parts.agent.keywords["config"] == TDMPC2Config()


def test_the_yaml_of_dreamerv3_repeats_the_defaults_of_its_dataclass():
    _, parts = cli.build_run(composed("env=dummy", "agent=dreamerv3"))
    assert parts.agent.keywords["config"] == DreamerV3Config()


@pytest.mark.parametrize("experiment", STUDIES)
def test_the_yaml_of_a_study_repeats_the_defaults_of_its_dataclass(experiment):
    cfg = composed(f"experiment={experiment}", command="supervised")
    study = instantiate(cfg.study, _convert_="all")
    kept = {
        field.name: getattr(study, field.name)
        for field in fields(study)
        if field.default is MISSING and field.default_factory is MISSING
    }
    assert settings_of(study) == settings_of(type(study)(**kept))


@pytest.mark.parametrize("experiment", STUDIES)
def test_every_study_has_a_preset_that_is_small_enough_for_a_test(experiment):
    cfg = composed(f"experiment={experiment}", "preset=ci", command="supervised")
    instantiate(OmegaConf.merge(cfg.study, cfg.presets.ci), _convert_="all")
