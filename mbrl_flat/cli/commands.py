"""What the commands do: compose the configuration once, build the parts, hand over.

Only this package knows Hydra: below it are plain values and objects. Whatever a user can get wrong
ends in one error message and exit status 2; ``debug=true`` shows the traceback.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mbrl_flat.cli.arguments import parse_arguments
from mbrl_flat.cli.build import build_config
from mbrl_flat.cli.composition import (
    apply_preset,
    build_part,
    build_run,
    catalogue,
    check_removals,
    compose_run,
    compose_study,
    composed,
    given_overrides,
    load_run,
    load_settings,
    plain,
    pretrained_folder,
    set_planner_dtype,
    settings_of,
    trusted,
)
from mbrl_flat.cli.error_messages import exceeds_memory, explain_error, raised_by_configuration
from mbrl_flat.cli.help import GROUPS
from mbrl_flat.cli.plugins import offer_plugins
from mbrl_flat.cli.schemas import SCHEMAS, EvaluateConfig, ExportConfig, ProbeConfig
from mbrl_flat.distributed.processes import Processes, joined, repeats_the_first
from mbrl_flat.errors import NonFiniteError, UserError, cause_of
from mbrl_flat.evaluation.episodes import check_episodes
from mbrl_flat.logging.console import say
from mbrl_flat.logging.labels import part_names
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.evaluate import evaluate_pretrained, evaluate_run
from mbrl_flat.runs.export import export_run
from mbrl_flat.runs.folder import create_run_folder, run_folder_path, writing
from mbrl_flat.runs.parts import Parts
from mbrl_flat.runs.plots import draw_run
from mbrl_flat.runs.probe import probe_run
from mbrl_flat.runs.resume import part_settings, resumable_keys
from mbrl_flat.runs.saved_config import foreign_targets
from mbrl_flat.runs.summary import summarize_run
from mbrl_flat.runs.train import follow_run, train_run
from mbrl_flat.runtime.device import usable_cores
from mbrl_flat.runtime.files import write_text_atomically
from mbrl_flat.runtime.interrupts import interruptible
from mbrl_flat.runtime.settings import dotted_keys, setting_key
from mbrl_flat.studies.command import SupervisedConfig, run_supervised
from mbrl_flat.sweeps import SweepJob, make_sweep, quoted, share_of_cores, wants_sweep

_CONFIGS = "pkg://mbrl_flat.configs"

__all__ = ["build_run", "compose_run", "compose_study", "load_run"]


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="train")
def _train(cfg: DictConfig) -> float | None:
    if job := _job("train"):
        return _train_in_sweep(cfg, job)
    with _error_messages("train", debug=cfg.debug), joined() as processes:
        if not processes.leads:
            return follow_run(processes, build_run)
        if cfg.resume:
            settings, folder = _resumed(cfg)
            status = _train_in(folder, settings, build_run(settings), processes, new=False)
        else:
            status = _train_anew(cfg, processes)
    if status:
        sys.exit(status)
    return None


def _train_anew(cfg: DictConfig, processes: Processes) -> int:
    """Train in a new folder; a run that cannot be built leaves nothing behind."""
    check_removals(cfg)
    cfg.names = part_names(HydraConfig.get().runtime.choices, cfg.env)
    exact, path = cfg.run_dir is not None, run_folder_path(cfg.run_dir, cfg.names, cfg.seed)
    cfg.run_dir = str(path)
    settings = settings_of(cfg)
    built = build_run(settings)
    folder = create_run_folder(path, exact=exact)
    if folder != path:  # Another run has taken the name meanwhile.
        cfg.run_dir = str(folder)
        settings = settings_of(cfg)
        built = build_run(settings)
    return _train_in(folder, settings, built, processes, new=True)


def _train_in(
    folder: Path,
    settings: Mapping[str, Any],
    built: tuple[RunConfig, Parts],
    processes: Processes,
    *,
    new: bool,
) -> int:
    """Train in a folder that exists; ``new`` says whether it was made for this run."""
    with writing(folder, new=new):
        if new:
            text = OmegaConf.to_yaml(OmegaConf.create(dict(settings)))
            write_text_atomically(folder / "config.yaml", text)
        processes.send(settings)
        status = train_run(*built, folder, processes)
    draw_run(folder)
    say(*summarize_run(folder, complete=not status))
    return status


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="evaluate")
def _evaluate(cfg: DictConfig) -> None:
    with _error_messages("evaluate", debug=cfg.debug):
        settings = settings_of(cfg)
        config = build_config(EvaluateConfig, settings)
        check_episodes(config.episodes, seed=config.seed)
        how = {"episodes": config.episodes, "seed": config.seed, "video": config.video}
        shapes = part_settings(given_overrides())
        if config.pretrained is not None:
            row = _evaluate_pretrained(config, shapes, **how)
        elif config.run is None and config.checkpoint not in ("latest", "best"):
            run_cfg = hydra.compose("train", overrides=shapes)
            run_cfg.device, run_cfg.threads = config.device, config.threads
            row = evaluate_pretrained(*build_run(run_cfg), Path(config.checkpoint), **how)
        elif shapes:
            raise UserError(f"A run keeps its settings, but {shapes[0]} was given; leave it out.")
        else:
            row = evaluate_run(*_saved_run(config), checkpoint=config.checkpoint, **how)
        say(*(f"{name:32} {value:12.4f}" for name, value in row.items()))


def _evaluate_pretrained(config: EvaluateConfig, shapes: list[str], **how: Any) -> dict[str, float]:
    if config.run is not None or config.checkpoint != "latest" or shapes:
        raise UserError("pretrained=NAME stands alone: leave run, checkpoint, env and agent out.")
    folder = pretrained_folder(str(config.pretrained))
    settings, _ = load_settings(str(folder))
    built = build_run(settings | {"device": config.device, "threads": config.threads})
    out = Path("runs") / "pretrained" / folder.name
    out.mkdir(parents=True, exist_ok=True)
    row = evaluate_run(*built, folder, checkpoint="latest", out=out, **how)
    say(f"results are in {out}")
    return row


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="probe")
def _probe(cfg: DictConfig) -> None:
    with _error_messages("probe", debug=cfg.debug):
        config = build_config(ProbeConfig, settings_of(cfg))
        check_episodes(config.episodes, seed=config.seed)
        row = probe_run(
            *_saved_run(config),
            name=HydraConfig.get().runtime.choices["probe"],
            probe=build_part(config.probe, "probe"),
            episodes=config.episodes,
            seed=config.seed,
        )
        say(*(f"{name:44} {value:14.6g}" for name, value in row.items()))


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="export")
def _export(cfg: DictConfig) -> None:
    with _error_messages("export", debug=cfg.debug):
        config = build_config(ExportConfig, settings_of(cfg))
        path, out = config.run, config.out
        if config.pretrained is not None:
            if path is not None:
                raise UserError("Give run=FOLDER or pretrained=NAME, not both.")
            path = str(pretrained_folder(config.pretrained))
            out = out or str(Path("runs") / "pretrained" / config.pretrained / "export")
        settings, folder = load_settings(path, config.trust)
        settings |= {"device": "cpu", "threads": config.threads}
        set_planner_dtype(settings, config.dtype)
        to = folder / "export" if out is None else Path(out)
        say(f"exporting {folder} to {to}, which takes about a minute")
        files = export_run(
            *build_run(settings),
            folder,
            format=config.format,
            checkpoint=config.checkpoint,
            rows=config.rows,
            out=to,
        )
        say(*files)


@hydra.main(version_base="1.3", config_path=_CONFIGS, config_name="supervised")
def _supervised(cfg: DictConfig) -> None:
    if job := _job("supervised"):
        job.run("supervised", lambda: [*job.overrides, f"run_dir={quoted(job.folder)}"])
        return
    with _error_messages("supervised", debug=cfg.debug):
        if cfg.resume:
            settings, folder = _resumed(cfg)
            settings["run_dir"] = str(folder)
        else:
            cfg.name = HydraConfig.get().runtime.choices["experiment"] or ""
            if not cfg.study:
                raise UserError("Say which study: experiment=NAME, such as label_noise.")
            apply_preset(cfg)
            settings = settings_of(cfg)
        config = build_config(SupervisedConfig, settings)
        text = OmegaConf.to_yaml(OmegaConf.create(settings))
        status = run_supervised(build_part(config.study, "study"), config, yaml=text)
    if status:
        sys.exit(status)


def _job(command: str) -> SweepJob | None:
    """The run of a sweep that this process was started for, if it was."""
    explain = partial(_explain, command=command)
    return SweepJob.of_this_process(given_overrides(), explain=explain)


def _train_in_sweep(cfg: DictConfig, job: SweepJob) -> float | None:
    if cfg.resume:
        return job.run("train", lambda: job.overrides)
    check_removals(cfg)
    cfg.run_dir = str(job.folder)
    cfg.threads = cfg.threads or share_of_cores(HydraConfig.get().launcher, usable_cores())
    cfg.names = part_names(HydraConfig.get().runtime.choices, cfg.env)
    return job.train(
        partial(OmegaConf.to_yaml, cfg, resolve=True),
        check=lambda: build_run(settings_of(cfg)),
        objective=cfg.objective,
        # What this command builds was chosen by its user, not by the folder it is resumed from.
        trust=[*foreign_targets(plain(cfg), catalogue()), *trusted(cfg.trust)],
    )


def _resumed(cfg: DictConfig) -> tuple[dict[str, Any], Path]:
    """The settings of a run that exists, with the few that may differ."""
    settings, folder = load_settings(cfg.resume, cfg.trust, study="study" in cfg)
    saved = OmegaConf.create(settings)
    for key in resumable_keys(given_overrides()):
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    return plain(saved), folder


def _saved_run(config: EvaluateConfig | ProbeConfig) -> tuple[RunConfig, Parts, Path]:
    """The run that a command looks at, on the device that was asked for."""
    settings, folder = load_settings(config.run, config.trust)
    return *build_run(settings | {"device": config.device, "threads": config.threads}), folder


def _command(main: Callable[[], Any], command: str, *, sweeps: bool = False) -> None:
    """Run a Hydra command; what is wrong with the command line becomes an error message."""
    # Hydra then raises its errors instead of printing them and leaving with status 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with interruptible(), _error_messages(command, debug="debug=true" in sys.argv):
        sys.argv[1:] = parse_arguments(sys.argv[1:], command=command, sweeps=sweeps)
        offer_plugins(sys.argv[1:])
        if sweeps and wants_sweep(sys.argv):
            main = partial(make_sweep, sys.argv, main, (HydraException, OmegaConfBaseException))
        main()


@contextmanager
def _error_messages(command: str, *, debug: bool) -> Iterator[None]:
    """Turn errors that a user can correct into one message and exit status 2."""
    try:
        yield
    except (UserError, NonFiniteError, HydraException, OmegaConfBaseException, OSError) as error:
        if debug:
            raise
        if not repeats_the_first(error):
            sys.stderr.write(_explain(error, command) + "\n")
        sys.exit(2)
    except SystemExit as error:
        # Hydra leaves with status 1 after a message of its own.
        sys.exit(2 if error.code == 1 and raised_by_configuration(error) else error.code)
    except Exception as error:
        if debug or not (exceeds_memory(error) or raised_by_configuration(error)):
            raise
        sys.stderr.write(_explain(error, command) + "\n")
        sys.exit(2)


def _explain(error: BaseException, command: str) -> str:
    known = partial(_all_keys, command)
    composing = cause_of(error, (ConfigCompositionException,))
    plus = {setting_key(w) for w in sys.argv[1:] if w.startswith("+") and w[:2] != "++"}
    others = (OmegaConfBaseException, MissingConfigException)
    if plus and composing and not cause_of(composing, others):
        for key in plus & known():
            error = UserError(f"{key} is there already; leave out the +: {key}=VALUE.")
    return explain_error(error, command=command, schema=SCHEMAS[command], known=known)


def _all_keys(command: str) -> set[str]:
    """Dotted keys of the configuration that the command's groups compose to."""
    groups = GROUPS[command]
    words = [w for w in sys.argv[1:] if w.partition("=")[0] in groups and "," not in w]
    return dotted_keys(plain(composed(command, words)))


train = partial(_command, _train, "train", sweeps=True)
evaluate = partial(_command, _evaluate, "evaluate")
probe = partial(_command, _probe, "probe")
export = partial(_command, _export, "export")
supervised = partial(_command, _supervised, "supervised", sweeps=True)
