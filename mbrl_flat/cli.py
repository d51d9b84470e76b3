"""The commands. The only file that knows Hydra: below it are plain objects.

A command composes its configuration, builds the pluggable parts, and hands over. Whatever a user
can get wrong ends in one sentence on stderr and exit status 2; ``debug=true`` shows where.
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
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mbrl_flat.closing_lines import closing_lines
from mbrl_flat.device import usable_cores
from mbrl_flat.errors import NonFiniteError, UserError, cause_of, unknown_name
from mbrl_flat.logging.console import say
from mbrl_flat.logging.labels import flatten, task_label
from mbrl_flat.parallel.processes import joined, repeats_the_first
from mbrl_flat.plots import draw_run
from mbrl_flat.probe_run import probe_run
from mbrl_flat.published import evaluate_published
from mbrl_flat.run import Parts, VectorFunctions, evaluate_run, follow_run, train_run
from mbrl_flat.run_config import RunConfig
from mbrl_flat.run_folder import new_run_folder, write_text_atomically, writing
from mbrl_flat.supervised.command import SupervisedConfig, run_supervised
from mbrl_flat.sweeps import SweepJob, make_sweep, quoted, share_of_cores, wants_sweep

_CONFIGS = "pkg://mbrl_flat.configs"
_RESUMABLE = ("resume", "steps", "device", "threads", "debug", "progress", "parallel_envs")
"""Keys that may differ when a run goes on; everything else comes from its folder."""

ConfigStore.instance().store(name="run_schema", node=RunConfig)
ConfigStore.instance().store(name="supervised_schema", node=SupervisedConfig)


def train() -> None:
    """Entry point of ``mbrl-flat-train``."""
    _command(_train, sweeps=True)


def evaluate() -> None:
    """Entry point of ``mbrl-flat-evaluate``."""
    _command(_evaluate)


def probe() -> None:
    """Entry point of ``mbrl-flat-probe``."""
    _command(_probe)


def supervised() -> None:
    """Entry point of ``mbrl-flat-supervised``."""
    _command(_supervised, "supervised", sweeps=True)


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="train")
def _train(cfg: DictConfig) -> float | None:
    if job := _job("train"):
        return _train_in_sweep(cfg, job)
    with _sentences(debug=cfg.debug), joined() as processes:
        if not processes.leads:
            follow_run(processes, _built)
            return None
        new = not cfg.resume
        cfg, folder = _new(cfg) if new else _resumed(cfg)
        with writing(folder, new=new):
            processes.send(cfg)
            say(f"run folder: {folder}")
            status = train_run(*_built(cfg), folder, processes)
        draw_run(folder)
        say(closing_lines(folder))
    if status:
        sys.exit(status)
    return None


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="evaluate")
def _evaluate(cfg: DictConfig) -> None:
    with _sentences(debug=cfg.debug):
        shapes = [o for o in HydraConfig.get().overrides.task if re.match(r"[+~]*(agent|env)\b", o)]
        how = {"episodes": cfg.episodes, "seed": cfg.seed, "video": cfg.video}
        if cfg.run is None and cfg.checkpoint not in ("latest", "best"):
            run_cfg = hydra.compose("train", overrides=shapes)
            run_cfg.device, run_cfg.threads = cfg.device, cfg.threads
            row = evaluate_published(*_built(run_cfg), Path(cfg.checkpoint), **how)
        elif shapes:
            raise UserError(f"A run keeps its settings, but {shapes[0]} was given; leave it out.")
        else:
            row = evaluate_run(*_saved_run(cfg), checkpoint=cfg.checkpoint, **how)
        say("\n".join(f"{name:32} {value:12.4f}" for name, value in row.items()))


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="probe")
def _probe(cfg: DictConfig) -> None:
    with _sentences(debug=cfg.debug):
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
    with _sentences(debug=cfg.debug):
        if cfg.resume:
            cfg, folder = _resumed(cfg)
            cfg.run_dir = str(folder)
        else:
            cfg.name = HydraConfig.get().runtime.choices["experiment"] or ""
            if not cfg.study:
                raise UserError("Say which study: experiment=NAME, such as label_noise.")
            _apply_preset(cfg)
        study = instantiate(cfg.study, _convert_="all")
        typed = OmegaConf.merge(OmegaConf.structured(SupervisedConfig), cfg)
        settings = cast(SupervisedConfig, OmegaConf.to_object(typed))
        status = run_supervised(study, settings, yaml=OmegaConf.to_yaml(cfg, resolve=True))
    if status:
        sys.exit(status)


def _job(config: str) -> SweepJob | None:
    """The run of a sweep that this process was started for, if it was."""
    explain = partial(_sentence, config=config)
    return SweepJob.of_this_process(HydraConfig.get().overrides.task, explain=explain)


def _train_in_sweep(cfg: DictConfig, job: SweepJob) -> float | None:
    if cfg.resume:
        return job.run("train", lambda: job.overrides)
    cfg.run_dir = str(job.folder)
    cfg.threads = cfg.threads or share_of_cores(HydraConfig.get().launcher, usable_cores())
    _name_parts(cfg)
    text = partial(OmegaConf.to_yaml, cfg, resolve=True)
    return job.train(text, check=lambda: _built(cfg), objective=cfg.objective)


def _name_parts(cfg: DictConfig) -> None:
    """Write down what the user called the parts."""
    choices = HydraConfig.get().runtime.choices
    names = {name: choices[name] for name in ("agent", "env", "optimizer")}
    cfg.names = {**names, "task": task_label(cfg.env)}


def _new(cfg: DictConfig) -> tuple[DictConfig, Path]:
    """Name the run, make its folder and write down what it is."""
    _name_parts(cfg)
    # What cannot be built must not leave a folder behind.
    _built(cfg)
    folder = new_run_folder(cfg.run_dir, cfg.names, cfg.seed)
    cfg.run_dir = str(folder)
    write_text_atomically(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    return cfg, folder


def _resumed(cfg: DictConfig) -> tuple[DictConfig, Path]:
    """The configuration of a run that exists, with the few keys that may differ."""
    saved, folder = _load_run(cfg.resume)
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").partition("=")[0]
        if key not in _RESUMABLE and not key.startswith("wandb."):
            raise UserError(
                f"A resumed run keeps its settings, but {override} was given; with resume= only "
                f"{', '.join(_RESUMABLE[1:])} and wandb.* can be set."
            )
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    return saved, folder


def _saved_run(cfg: DictConfig) -> tuple[RunConfig, Parts, Path]:
    """The run that a command looks at, on the device that was asked for."""
    run_cfg, folder = _load_run(cfg.run)
    run_cfg.device, run_cfg.threads = cfg.device, cfg.threads
    return *_built(run_cfg), folder


def _load_run(path: str | None) -> tuple[DictConfig, Path]:
    if not path:
        raise UserError("Say which run: run=runs/NAME.")
    folder = Path(path)
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"There is no run at {folder}: {file} is missing; check the path.")
    return cast(DictConfig, OmegaConf.load(file)), folder


def _apply_preset(cfg: DictConfig) -> None:
    """Put the preset's sizes into the study, below what was set on the command line."""
    if cfg.preset not in cfg.presets and cfg.preset != "default":
        raise unknown_name("preset", cfg.preset, ["default", *cfg.presets], where=cfg.name)
    sized = OmegaConf.merge(cfg.study, cfg.presets.get(cfg.preset, {}))
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith("study."):
            OmegaConf.update(sized, key.removeprefix("study."), OmegaConf.select(cfg, key))
    cfg.study = sized


def compose_run(*overrides: str) -> tuple[RunConfig, Parts]:
    """Configuration and parts of a run of ``mbrl-flat-train`` with these arguments, for scripts."""
    return _built(_composed("train", list(overrides)))


def _built(cfg: DictConfig) -> tuple[RunConfig, Parts]:
    return _run_config(cfg), _parts(cfg)


def _composed(config: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module("mbrl_flat.configs", version_base="1.3"):
        return hydra.compose(config, overrides=overrides)


def _run_config(cfg: DictConfig) -> RunConfig:
    return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(RunConfig, cfg)))


def _parts(cfg: DictConfig) -> Parts:
    return Parts(
        agent=instantiate(cfg.agent),
        baseline=get_class("agents.random_agent.RandomAgent"),
        env=instantiate(cfg.env),
        optimizer=instantiate(cfg.optimizer, _convert_="all"),
        probes={name: instantiate(probe) for name, probe in cfg.probes.items()},
        vectors=cast(VectorFunctions, importlib.import_module("envs")),
    )


def _command(main: Callable[[], Any], config: str = "train", *, sweeps: bool = False) -> None:
    """Run a Hydra command; errors in the command line become sentences."""
    # Hydra then raises its errors instead of printing them and leaving with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with _sentences(debug="debug=true" in sys.argv, config=config):
        if sweeps and wants_sweep(sys.argv):
            main = partial(make_sweep, sys.argv, main, (HydraException, OmegaConfBaseException))
        main()


@contextmanager
def _sentences(*, debug: bool, config: str = "train") -> Iterator[None]:
    """Turn errors that a user can correct into one sentence and exit status 2."""
    known = (UserError, NonFiniteError, HydraException, OmegaConfBaseException, OSError)
    try:
        yield
    except known as error:
        if debug:
            raise
        if not repeats_the_first(error):
            sys.stderr.write(_sentence(error, config) + "\n")
        sys.exit(2)


def _sentence(error: BaseException, config: str) -> str:
    if ours := cause_of(error, (UserError, NonFiniteError)):
        return str(ours)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return str(unknown_name(group, name, error.options or []))
    if isinstance(error, InstantiationException):
        cause = error.__cause__
        where = re.search(r"full_key: (\S+)", str(error))
        place = f" (at {where.group(1)})" if where else ""
        return f"{str(cause or error).splitlines()[0]}{place}"
    if key := re.search(r"[Kk]ey '([^']+)'", f"{error} {error.__cause__}"):
        full = re.search(r"full_key: (\S+)", f"{error} {error.__cause__}")
        name = full.group(1) if full else key.group(1)
        return str(unknown_name("key", name, _all_keys(config)))
    if isinstance(error, OSError):
        file = error.filename or "the run folder"
        return f"{error.strerror or error}: {file}; what was saved before is whole."
    lines = [*str(error).splitlines(), *str(error.__cause__ or "").splitlines()]
    return " ".join(line.strip() for line in lines if line.strip())


def _all_keys(config: str) -> set[str]:
    """Dotted keys of the configuration that the command's groups compose to."""
    names = "agent|env|optimizer|optimizer/base|preset" if config == "train" else "experiment"
    composed = _composed(config, [a for a in sys.argv[1:] if re.match(rf"({names})=[^,]*$", a)])
    plain = cast(dict[str, Any], OmegaConf.to_container(composed))
    paths = [key.split(".") for key, _ in flatten(plain)]
    return {".".join(path[:n]) for path in paths for n in range(1, len(path) + 1)}
