"""Compose configurations, read those of saved runs, and build the parts that they describe."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mbrl_flat.agents.random_agent import RandomAgent
from mbrl_flat.cli.arguments import CONFIGS
from mbrl_flat.cli.build import build, build_config, is_required, locate
from mbrl_flat.cli.error_messages import explain_error
from mbrl_flat.cli.plugins import offer_plugins, plugin_targets
from mbrl_flat.cli.schemas import SCHEMAS
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.logging.labels import part_names
from mbrl_flat.optim import FlatOptimizer
from mbrl_flat.optim.settings import check_settings
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.parts import Parts, VectorFunctions
from mbrl_flat.runs.resume import existing_run
from mbrl_flat.runs.saved_config import Catalogue, read_catalogue, read_saved_config
from mbrl_flat.runtime.plain_files import check_values
from mbrl_flat.runtime.settings import dotted_keys, setting_key

for _name, _schema in SCHEMAS.items():
    ConfigStore.instance().store(name=f"{_name}_schema", node=_schema)


def compose_run(*overrides: str) -> tuple[RunConfig, Parts]:
    """Configuration and parts of a run of ``mbrl-flat-train`` with these arguments, for scripts."""
    return build_run(composed("train", list(overrides)))


def compose_study(*overrides: str) -> Any:
    """The study of ``mbrl-flat-supervised`` with these arguments, for scripts."""
    return build_part(plain(composed("supervised", list(overrides)))["study"], "study")


def build_part(node: Any, key: str) -> Any:
    """Build a part of a configuration.

    Args:
        node: Its settings, with a ``_target_``.
        key: Its dotted name.

    Returns:
        The part.

    Raises:
        UserError: If it has no ``_target_`` or cannot be built.
    """
    part = build(node, key)
    if isinstance(part, Mapping):
        raise UserError(f"{key} has no _target_; leave ~{key}._target_ out.")
    return part


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain values.

    Returns:
        The values, interpolations resolved.

    Raises:
        UserError: If a number fits no machine type, or ``trust`` is no name.
    """
    settings = plain(cfg)
    try:
        check_values(settings)
    except ValueError as error:
        raise UserError(f"{error}; give a smaller one.") from error
    trusted(settings.get("trust"))
    return settings


def given_overrides() -> list[str]:
    """The settings of the command line as they were typed, with their references."""
    words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return words


def check_removals(cfg: DictConfig) -> None:
    """Refuse ``~key`` of what a part cannot be without."""
    for word in given_overrides():
        above, _, last = word.removeprefix("~").partition("=")[0].rpartition(".")
        node = OmegaConf.select(cfg, above) if word.startswith("~") else None
        there = isinstance(node, DictConfig) and last not in node
        part = node.get("_target_") if there and node is not None else None
        if word == "~env.task" or (part and is_required(locate(part, above), last)):
            raise UserError(f"{word} removes what is needed; give a value: {word[1:]}=VALUE.")


def plain(cfg: Any) -> dict[str, Any]:
    """A configuration as plain values, interpolations resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


def build_run(cfg: Mapping[str, Any] | DictConfig) -> tuple[RunConfig, Parts]:
    """Check a composed configuration and build the parts of its run.

    Args:
        cfg: All settings of ``mbrl-flat-train``.

    Returns:
        The settings and the parts.

    Raises:
        UserError: If a value is wrong or a part cannot be built.
    """
    config = build_config(RunConfig, plain(cfg) if isinstance(cfg, DictConfig) else cfg)
    names = ("agent", "env", "optimizer")
    agent, env, optimizer = (build(getattr(config, name), name) for name in names)
    for name, part in zip(names, (agent, env, optimizer), strict=True):
        if not callable(part):
            raise UserError(f"{name} has no _target_; choose one by {name}=NAME.")
    method = optimizer.func if isinstance(optimizer, partial) else optimizer
    if isinstance(method, type) and issubclass(method, FlatOptimizer):
        check_settings(method, optimizer.keywords if method is not optimizer else {})
    probes = {name: build(node, f"probes.{name}") for name, node in config.probes.items()}
    for name, part in probes.items():
        if not callable(part):
            raise UserError(f"probes.{name} has no _target_; ~probes.{name} removes it.")
    return config, Parts(
        agent=agent,
        baseline=RandomAgent,
        env=env,
        optimizer=optimizer,
        probes=probes,
        vectors=cast(VectorFunctions, importlib.import_module("mbrl_flat.envs")),
    )


def composed(config: str, overrides: list[str]) -> DictConfig:
    """What a command's configuration and these words of the command line compose to."""
    GlobalHydra.instance().clear()
    offer_plugins(overrides)
    with hydra.initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        return hydra.compose(config, overrides=overrides)


def compose_values(words: list[str], values: Mapping[str, Any]) -> DictConfig:
    """The configuration of ``mbrl-flat-train`` with words, then values of its keys.

    Args:
        words: As on the command line.
        values: By their dotted names.

    Returns:
        The configuration.

    Raises:
        UserError: If there is no such key.
    """
    GlobalHydra.instance().clear()
    offer_plugins(words)
    with (
        explained(dict),
        hydra.initialize_config_module("mbrl_flat.configs", version_base="1.3"),
    ):
        cfg = hydra.compose("train", overrides=words, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    cfg.names = part_names(choices, cfg.env)
    set_values(cfg, values)
    return cfg


def set_values(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    """Set values of a configuration of ``mbrl-flat-train``, by their dotted names.

    Raises:
        UserError: If there is no such key or it takes another type.
    """
    with explained(lambda: plain(cfg)):
        for key, value in values.items():
            OmegaConf.update(cfg, key, value)


@contextmanager
def explained(settings: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Raise what goes wrong with a configuration as the message that the commands print.

    Args:
        settings: Gives the configuration; asked only where it matters.

    Raises:
        UserError: Instead of the errors of Hydra and OmegaConf.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        known = lambda: dotted_keys(settings())  # noqa: E731
        message = explain_error(error, command="train", schema=RunConfig, known=known)
        raise UserError(message) from error


def load_settings(
    path: str | None, trust: Any = None, *, study: bool = False
) -> tuple[dict[str, Any], Path]:
    """The settings of a run that exists, as plain values, and its folder."""
    folder = existing_run(path, study=study)
    return read_saved_config(folder, catalogue=catalogue(), trust=trusted(trust)), folder


def load_run(path: str | None, *, trust: Any = None) -> tuple[DictConfig, Path]:
    """The configuration of a run that exists, and its folder."""
    settings, folder = load_settings(path, trust)
    return OmegaConf.create(settings), folder


def pretrained_folder(name: str) -> Path:
    """The folder of a pretrained agent, in the form of a run's.

    Args:
        name: Such as ``walker-stand``.

    Returns:
        The folder.

    Raises:
        UnknownNameError: If there is no such agent.
    """
    pretrained = importlib.import_module("mbrl_flat.pretrained")
    if name not in pretrained.CARDS:
        raise UnknownNameError("pretrained agent", name, pretrained.CARDS)
    return pretrained.FOLDER / name


@cache
def catalogue() -> Catalogue:
    """What the installed configurations and packages build."""
    return plugin_targets() | read_catalogue(sorted(CONFIGS.rglob("*.yaml")))


def trusted(trust: Any) -> list[str]:
    """The value of ``trust``, one name or a list of them, as a list.

    Args:
        trust: What the user wrote.

    Returns:
        The names.

    Raises:
        UserError: If it is something else.
    """
    names = [] if trust is None else [trust] if isinstance(trust, str) else trust
    listed = isinstance(names, Sequence)
    names = list(names) if listed else []
    if not listed or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"trust must be a module or a list of modules, got {trust!r}.")
    return names


def apply_preset(cfg: DictConfig) -> None:
    """Put the preset's sizes into the study, below what was set on the command line.

    Raises:
        UnknownNameError: If the study has no such preset.
    """
    if cfg.preset not in cfg.presets and cfg.preset != "default":
        raise UnknownNameError("preset", cfg.preset, ["default", *cfg.presets], where=cfg.name)
    OmegaConf.set_struct(cfg, value=False)  # A preset may have what was taken out.
    sized = OmegaConf.create({"study": OmegaConf.merge(cfg.study, cfg.presets.get(cfg.preset, {}))})
    for override in given_overrides():
        above, _, last = setting_key(override).rpartition(".")
        if override.startswith("~study."):
            OmegaConf.select(sized, above).pop(last, None)
        elif f"{above}.".startswith("study."):
            OmegaConf.update(sized, f"{above}.{last}", OmegaConf.select(cfg, f"{above}.{last}"))
    cfg.study = sized.study


def set_planner_dtype(settings: dict[str, Any], dtype: str | None) -> None:
    """Plan in another precision than a run did.

    Raises:
        UserError: If the agent has no planner.
    """
    if dtype is None:
        return
    agent = settings["agent"].get("config", {})
    if "planner_dtype" not in agent:
        raise UserError(
            f"dtype={dtype} is the planner's, which only agent=tdmpc2 has; leave it out."
        )
    agent["planner_dtype"] = dtype
