"""The YAML of every optimizer says the settings that its builder has, with the same values."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mbrl_flat.optim import OPTIMIZERS

FOLDER = Path(__file__).parents[3] / "configs" / "optimizer"


def load(name):
    return OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"), resolve=False)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_target_is_the_registered_builder(name):
    build = OPTIMIZERS[name].build

    assert load(name)["_target_"] == f"{build.__module__}.{build.__name__}"
    assert load(name)["_partial_"] is True


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_settings_are_those_of_the_builder_with_its_defaults(name):
    config = load(name)
    given = {k: v for k, v in config.items() if k not in {"_target_", "_partial_", "defaults"}}
    wanted = dict(OPTIMIZERS[name].settings)

    assert set(given) == set(wanted)
    for key in given.keys() - {"lr"}:
        value = tuple(given[key]) if isinstance(given[key], list) else given[key]
        assert value == wanted[key], key


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_base_is_chosen_exactly_where_there_is_one(name):
    chosen = [entry for entry in load(name).get("defaults", []) if "base" in entry]

    assert len(chosen) == int(OPTIMIZERS[name].has_base)


@pytest.mark.parametrize("base", ["adam", "adamw", "laprop", "sgd"])
def test_a_base_has_the_numbers_of_the_optimizer_of_its_name(base):
    plain, inner = load(base), load(f"base/{base}")

    assert {k: v for k, v in plain.items() if k != "_target_"} == {
        k: v for k, v in inner.items() if k != "_target_"
    }
