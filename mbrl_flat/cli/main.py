"""The commands. The only file that knows Hydra: below it are plain objects.

A command composes its configuration, builds the pluggable parts, and hands over. Whatever a user
can get wrong ends in one line on stderr and exit status 2; ``debug=true`` shows where.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mbrl_flat.cli.arguments import parse_arguments
from mbrl_flat.cli.error_messages import additions_refused, explain_error, format_part_error
from mbrl_flat.cli.override_checks import check_additions, check_types
from mbrl_flat.distributed.processes import joined, repeats_the_first
from mbrl_flat.errors import NonFiniteError, UnknownNameError, UserError
from mbrl_flat.evaluation.episodes import check_episodes
from mbrl_flat.logging.console import say
from mbrl_flat.logging.labels import current_names, part_names
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.evaluate import evaluate_pretrained, evaluate_run
from mbrl_flat.runs.folder import new_run_folder, writing
from mbrl_flat.runs.parts import Parts, VectorFunctions
from mbrl_flat.runs.plots import draw_run
from mbrl_flat.runs.probe import probe_run
from mbrl_flat.runs.renamed import with_current_names
from mbrl_flat.runs.resume import existing_run, moved_paths, part_settings, resumable_keys
from mbrl_flat.runs.summary import summarize_run
from mbrl_flat.runs.train import follow_run, train_run
from mbrl_flat.runtime.device import usable_cores
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.interrupts import interruptible
from mbrl_flat.runtime.settings import dotted_keys, setting_key
from mbrl_flat.studies.command import SupervisedConfig, run_supervised
from mbrl_flat.sweeps import SweepJob, make_sweep, quoted, share_of_cores, wants_sweep

_CONFIGS = "pkg://mbrl_flat.configs"

ConfigStore.instance().store(name="run_schema", node=RunConfig)
ConfigStore.instance().store(name="supervised_schema", node=SupervisedConfig)


def train() -> None:
    """Entry point of ``mbrl-flat-train``."""
    _command(_train, "train", sweeps=True)


def evaluate() -> None:
    """Entry point of ``mbrl-flat-evaluate``."""
    _command(_evaluate, "evaluate")


def probe() -> None:
    """Entry point of ``mbrl-flat-probe``."""
    _command(_probe, "probe")


def supervised() -> None:
    """Entry point of ``mbrl-flat-supervised``."""
    _command(_supervised, "supervised", sweeps=True)


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="train")
def _train(cfg: DictConfig) -> float | None:
    if job := _job("train"):
        return _train_in_sweep(cfg, job)
    with _error_messages(debug=cfg.debug), joined() as processes:
        if not processes.leads:
            return follow_run(processes, build_run)
        new = not cfg.resume
        cfg, folder = _new(cfg) if new else _resumed(cfg)
        with writing(folder, new=new):
            processes.send(cfg)
            say(f"run folder: {folder}")
            status = train_run(*build_run(cfg), folder, processes)
        draw_run(folder)
        say(summarize_run(folder, complete=not status))
    if status:
        sys.exit(status)
    return None


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="evaluate")
def _evaluate(cfg: DictConfig) -> None:
    with _error_messages(debug=cfg.debug, config="evaluate"):
        shapes = part_settings(HydraConfig.get().overrides.task)
        _checked(cfg)
        check_episodes(cfg.episodes, seed=cfg.seed)
        how = {"episodes": cfg.episodes, "seed": cfg.seed, "video": cfg.video}
        if cfg.run is None and cfg.checkpoint not in ("latest", "best"):
            run_cfg = hydra.compose("train", overrides=shapes)
            run_cfg.device, run_cfg.threads = cfg.device, cfg.threads
            row = evaluate_pretrained(*build_run(run_cfg), Path(cfg.checkpoint), **how)
        elif shapes:
            raise UserError(f"A run keeps its settings, but {shapes[0]} was given; leave it out.")
        else:
            row = evaluate_run(*_saved_run(cfg), checkpoint=cfg.checkpoint, **how)
        say("\n".join(f"{name:32} {value:12.4f}" for name, value in row.items()))


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="probe")
def _probe(cfg: DictConfig) -> None:
    with _error_messages(debug=cfg.debug, config="probe"):
        check_episodes(_checked(cfg).episodes, seed=cfg.seed)
        row = probe_run(
            *_saved_run(cfg),
            name=HydraConfig.get().runtime.choices["probe"],
            probe=instantiate(cfg.probe, _convert_="all"),
            episodes=cfg.episodes,
            seed=cfg.seed,
        )
        say("\n".join(f"{name:44} {value:14.6g}" for name, value in row.items()))


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="supervised")
def _supervised(cfg: DictConfig) -> None:
    if job := _job("supervised"):
        job.run("supervised", lambda: [*job.overrides, f"run_dir={quoted(job.folder)}"])
        return
    with _error_messages(debug=cfg.debug, config="supervised"):
        if cfg.resume:
            cfg, folder = _resumed(cfg)
            cfg.run_dir = str(folder)
        else:
            cfg.name = HydraConfig.get().runtime.choices["experiment"] or ""
            _checked(cfg)
            if not cfg.study:
                raise UserError("Say which study: experiment=NAME, such as label_noise.")
            _apply_preset(cfg)
        study = instantiate(cfg.study, _convert_="all")
        text = OmegaConf.to_yaml(cfg, resolve=True)
        status = run_supervised(study, _run_config(cfg, SupervisedConfig), yaml=text)
    if status:
        sys.exit(status)


def _job(config: str) -> SweepJob | None:
    """The run of a sweep that this process was started for, if it was."""
    explain = partial(_error_message, config=config)
    return SweepJob.of_this_process(HydraConfig.get().overrides.task, explain=explain)


def _train_in_sweep(cfg: DictConfig, job: SweepJob) -> float | None:
    if cfg.resume:
        return job.run("train", lambda: job.overrides)
    cfg.run_dir = str(job.folder)
    cfg.threads = cfg.threads or share_of_cores(HydraConfig.get().launcher, usable_cores())
    cfg.names = part_names(HydraConfig.get().runtime.choices, cfg.env)
    text = partial(OmegaConf.to_yaml, cfg, resolve=True)
    return job.train(text, check=lambda: build_run(_checked(cfg)), objective=cfg.objective)


def _new(cfg: DictConfig) -> tuple[DictConfig, Path]:
    """Name the run, make its folder and write down what it is."""
    cfg.names = part_names(HydraConfig.get().runtime.choices, cfg.env)
    # What cannot be built must not leave a folder behind.
    build_run(_checked(cfg))
    folder = new_run_folder(cfg.run_dir, cfg.names, cfg.seed)
    cfg.run_dir = str(folder)
    write_text_atomically(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    return cfg, folder


def _resumed(cfg: DictConfig) -> tuple[DictConfig, Path]:
    """The configuration of a run that exists, with the few keys that may differ."""
    saved, folder = load_run(cfg.resume, study="study" in cfg)
    for key in resumable_keys(HydraConfig.get().overrides.task):
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    return saved, folder


def _saved_run(cfg: DictConfig) -> tuple[RunConfig, Parts, Path]:
    """The run that a command looks at, on the device that was asked for."""
    run_cfg, folder = load_run(cfg.run)
    run_cfg.device, run_cfg.threads = cfg.device, cfg.threads
    return *build_run(run_cfg), folder


def load_run(path: str | None, *, study: bool = False) -> tuple[DictConfig, Path]:
    """The configuration of a run that exists, and its folder."""
    folder = existing_run(path, study=study)
    try:
        loaded = _plain(OmegaConf.load(folder / "config.yaml"))
        saved = cast(DictConfig, OmegaConf.create(with_current_names(loaded)))
        for key, value in moved_paths(_plain(saved), folder):
            OmegaConf.update(saved, key, value)
        if "names" in saved:
            saved["names"] = current_names(saved["names"] or {})
    except (YAMLError, LookupError, TypeError) as error:
        raise UserError(f"{folder / 'config.yaml'} is damaged; restore it.") from error
    return saved, folder


def _apply_preset(cfg: DictConfig) -> None:
    """Put the preset's sizes into the study, below what was set on the command line."""
    if cfg.preset not in cfg.presets and cfg.preset != "default":
        raise UnknownNameError("preset", cfg.preset, ["default", *cfg.presets], where=cfg.name)
    OmegaConf.set_struct(cfg, value=False)  # A preset may have what was taken out.
    sized = OmegaConf.create({"study": OmegaConf.merge(cfg.study, cfg.presets.get(cfg.preset, {}))})
    for override in HydraConfig.get().overrides.task:
        above, _, last = setting_key(override).rpartition(".")
        if override.startswith("~study."):
            OmegaConf.select(sized, above).pop(last, None)
        elif f"{above}.".startswith("study."):
            OmegaConf.update(sized, f"{above}.{last}", OmegaConf.select(cfg, f"{above}.{last}"))
    cfg.study = sized.study


def compose_run(*overrides: str) -> tuple[RunConfig, Parts]:
    """Configuration and parts of a run of ``mbrl-flat-train`` with these arguments, for scripts."""
    return build_run(_composed("train", list(overrides)))


def compose_study(*overrides: str) -> Any:
    """The study of ``mbrl-flat-supervised`` with these arguments, for scripts."""
    return instantiate(_composed("supervised", list(overrides)).study, _convert_="all")


def _checked(cfg: DictConfig) -> DictConfig:
    """Refuse keys that nothing reads, and text for numbers, which parts notice in use alone."""
    about = HydraConfig.get()
    task, groups, name = about.overrides.task, about.runtime.choices, about.job.config_name
    check_additions(task, groups=groups, known=partial(_all_keys, str(name)))
    check_types(
        task, _plain(cfg), groups=groups, without=lambda kept: _plain(hydra.compose(name, kept))
    )
    return cfg


def _plain(cfg: Any) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(cfg))


def build_run(cfg: DictConfig) -> tuple[RunConfig, Parts]:
    """Typed configuration and parts of a composed one."""
    return _run_config(cfg), _parts(cfg)


def _composed(config: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        return hydra.compose(config, overrides=overrides)


def _run_config(cfg: DictConfig, schema: type[Any] = RunConfig) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), cfg))


def _parts(cfg: DictConfig) -> Parts:
    return Parts(
        agent=instantiate(cfg.agent),
        baseline=get_class("mbrl_flat.agents.random_agent.RandomAgent"),
        env=instantiate(cfg.env),
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        probes={name: instantiate(probe) for name, probe in cfg.probes.items()},
        vectors=cast(VectorFunctions, importlib.import_module("mbrl_flat.envs")),
    )


def _command(main: Callable[[], Any], config: str, *, sweeps: bool = False) -> None:
    """Run a Hydra command; errors in the command line become error messages."""
    # Hydra then raises its errors instead of printing them and leaving with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with interruptible(), _error_messages(debug="debug=true" in sys.argv, config=config):
        sys.argv[1:] = parse_arguments(sys.argv[1:], command=config, sweeps=sweeps)
        if sweeps and wants_sweep(sys.argv):
            main = partial(make_sweep, sys.argv, main, (HydraException, OmegaConfBaseException))
        main()


@contextmanager
def _error_messages(*, debug: bool, config: str = "train") -> Iterator[None]:
    """Turn errors that a user can correct into one error message and exit status 2."""
    try:
        with additions_refused(sys.argv[1:], known=partial(_all_keys, config)):
            yield
    except (UserError, NonFiniteError, HydraException, OmegaConfBaseException, OSError) as error:
        if debug:
            raise
        if not repeats_the_first(error):
            sys.stderr.write(_error_message(error, config) + "\n")
        sys.exit(2)


def _error_message(error: BaseException, config: str) -> str:
    if isinstance(error, InstantiationException):
        return format_part_error(error)
    return explain_error(
        error, command=config, words=sys.argv[1:], known=partial(_all_keys, config)
    )


def _all_keys(config: str) -> set[str]:
    """Dotted keys of the configuration that the command's groups compose to."""
    names = "agent|env|optimizer|optimizer/base|preset" if config == "train" else "experiment|probe"
    composed = _composed(config, [a for a in sys.argv[1:] if re.match(rf"({names})=[^,]*$", a)])
    return dotted_keys(_plain(composed))
