"""Put the parts of a run together, train or evaluate, and leave a complete folder behind."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from mbrl_flat.data.capacity import check_capacity
from mbrl_flat.data.mirror import DeviceMirror, wants_mirror
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.probe import ReplayProbe
from mbrl_flat.distributed.processes import Processes
from mbrl_flat.distributed.split_update import SplitUpdate, follow
from mbrl_flat.errors import UnknownNameError
from mbrl_flat.evaluation.multitask import make_evaluation
from mbrl_flat.interfaces import Agent, Inspectable, Logger, Measurement
from mbrl_flat.logging.console import ConsoleLogger, say
from mbrl_flat.logging.jsonl import JsonlLogger
from mbrl_flat.logging.labels import run_labels, run_settings
from mbrl_flat.logging.multi import MultiLogger
from mbrl_flat.logging.wandb import WandbLogger
from mbrl_flat.runs.callbacks import Callbacks
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.loading import (
    apply_settings,
    changed_settings,
    check_shapes,
    refused_if_unfit,
    shapes_of_spec,
)
from mbrl_flat.runs.offline_data import check_offline, fill_replay
from mbrl_flat.runs.parts import Parts, build_agent, replay_folder
from mbrl_flat.runs.provenance import write_environment
from mbrl_flat.runtime.device import use_threads
from mbrl_flat.runtime.interrupts import stop_requests
from mbrl_flat.specs import EnvSpec
from mbrl_flat.training.checkpoint import CheckpointFolder
from mbrl_flat.training.collector import TrainEnvs
from mbrl_flat.training.energy_sampler import UNIFORM, EnergySampler
from mbrl_flat.training.schedule import TrainConfig, check_steps
from mbrl_flat.training.trainer import Trainer


def train_run(
    config: RunConfig,
    parts: Parts,
    folder: Path,
    processes: Processes | None = None,
    *,
    callbacks: Callbacks | None = None,
) -> int:
    """Train in ``folder``, from its newest checkpoint if it has one.

    Args:
        config: The run's configuration.
        parts: Its pluggable parts.
        folder: The run's folder.
        processes: Who helps with the updates; this process leads them.
        callbacks: Functions to call during the run.

    Returns:
        Exit status: 0 when complete, 130 after Ctrl-C.

    Raises:
        UserError: If the newest checkpoint does not fit this run.
    """
    with ExitStack() as stack:
        trainer, saved = build_trainer(
            config, parts, folder, processes or Processes(), stack, callbacks=callbacks
        )
        request = stack.enter_context(stop_requests())
        if saved is None:
            trainer.logger.truncate(0)
            trainer.start()
        else:
            changed = changed_settings(folder, config)
            with refused_if_unfit(trainer.checkpoints.latest):
                trainer.load_state_dict(saved)
            apply_settings(folder, trainer.agent, changed)
            if trainer.finished:
                say(f"{folder} is finished: all {trainer.step} steps are made; steps=N extends it.")
        complete = trainer.run(stop=lambda: request.signal is not None)
    return 0 if complete else request.exit_status


def build_trainer(
    config: RunConfig,
    parts: Parts,
    folder: Path,
    processes: Processes,
    stack: ExitStack,
    *,
    callbacks: Callbacks | None = None,
) -> tuple[Trainer, dict[str, Any] | None]:
    """Put the parts of a run together.

    Args:
        config: The run's configuration.
        parts: Its pluggable parts.
        folder: The run's folder.
        processes: Who helps with the updates.
        stack: Closes environments and logs.
        callbacks: Functions to call during the run.

    Returns:
        The trainer, and the newest checkpoint if there is one, still to be loaded.
    """
    device = processes.device(config.device)
    use_threads(config.threads, processes=processes.local_count)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    saved = checkpoints.load_for_resume(steps=config.steps, device=device)
    make = partial(parts.vectors.make_vector, parts.env)
    envs = make(num_envs=config.num_envs, seed=config.seed, parallel=config.parallel_envs)
    stack.callback(envs.close)
    spec = parts.vectors.spec_of(envs)
    checkpoints.shapes = shapes_of_spec(spec)
    if saved is not None:
        check_shapes(saved, spec, folder)
    check_offline(config, spec)
    schedule = _train_config(config, spec)
    agent = build_agent(config, parts, spec, device, sync=_sync(config, processes))
    check_steps(schedule, num_envs=config.num_envs, learns=isinstance(agent, Inspectable))
    replay = _replay(config, spec, agent, device, folder)
    if config.offline_data and saved is None:
        fill_replay(replay, config, spec, folder)
    write_environment(folder, device)
    jsonl = JsonlLogger(folder / "metrics.jsonl")
    console = ConsoleLogger(config.steps, description=folder.name, progress=config.progress)
    told = callbacks or Callbacks()
    logger = MultiLogger(jsonl, console, *_mirrors(config, folder, spec), told)
    stack.callback(logger.close)
    train_envs = TrainEnvs(
        vector=envs,
        spec=spec,
        save=partial(parts.vectors.vector_state, envs),
        restore=partial(parts.vectors.restore_vector, envs),
    )
    evaluations: list[Measurement] = []
    if config.eval_every > 0:
        evaluation = make_evaluation(
            agent,
            parts.vectors.make_vector,
            parts.env,
            spec,
            episodes=config.eval_episodes,
            seed=config.seed,
            env_seed=config.seed + 1,
            device=device,
            baseline=parts.baseline(spec),
            videos=folder / "videos" if config.video else None,
            names=config.names,
        )
        stack.callback(evaluation.close)
        evaluations = [evaluation]
    probes = parts.probes.values() if isinstance(agent, Inspectable) else ()
    uniform = config.replay.policy == UNIFORM
    trainer = Trainer(
        agent,
        None if config.offline_data else train_envs,
        replay,
        logger,
        config=schedule,
        checkpoints=checkpoints,
        evaluations=evaluations,
        probes=[ReplayProbe(probe, cast(Inspectable, agent), replay) for probe in probes],
        device=device,
        on_step=told.after(console.advance),
        update=SplitUpdate(agent, spec, processes, device) if processes.count > 1 else None,
        sampler=None if uniform else EnergySampler(replay, agent, config.replay, seed=config.seed),
    )
    return trainer, saved


def _replay(
    config: RunConfig, spec: EnvSpec, agent: Agent, device: torch.device, folder: Path
) -> Replay:
    replay = Replay(
        spec,
        config.replay_capacity,
        num_envs=config.num_envs,
        heldout_fraction=config.heldout_fraction,
        complete_only=not agent.across_episodes,
        seed=config.seed,
        folder=replay_folder(config, folder),
    )
    check_capacity(replay, spec, length=agent.sequence_length, steps=config.steps)
    if wants_mirror(config.replay_mirror, replay.nbytes, device):
        replay.mirror = DeviceMirror(replay.arrays, device)
    return replay


def follow_run(processes: Processes, build: Callable[[Any], tuple[RunConfig, Parts]]) -> None:
    """Help with the updates of the run that another process leads, until it ends.

    Args:
        processes: The leading one sends the configuration, and all that follows from it.
        build: Makes settings and parts of the configuration that is sent.
    """
    sent = processes.receive()
    if sent is None:
        return
    config, parts = build(sent)
    device = processes.device(config.device)
    use_threads(config.threads, processes=processes.local_count)
    sync = _sync(config, processes)
    follow(lambda spec: build_agent(config, parts, spec, device, sync=sync), processes, device)


def _sync(config: RunConfig, processes: Processes) -> str:
    if config.sync not in ("global", "local"):
        raise UnknownNameError("sync", config.sync, ("global", "local"))
    return config.sync if processes.count > 1 else "none"


def _train_config(config: RunConfig, spec: EnvSpec) -> TrainConfig:
    seed_steps = 0 if config.offline_data else config.seed_steps
    if seed_steps is None:
        seed_steps = min(max(1000, 5 * spec.episode_length), 5000)
    return TrainConfig(
        steps=config.steps,
        seed=config.seed,
        seed_steps=seed_steps,
        updates_per_step=config.updates_per_step,
        log_every=config.log_every,
        eval_every=config.eval_every,
        probe_every=config.probe_every,
        checkpoint_every=config.checkpoint_every,
    )


def _mirrors(config: RunConfig, folder: Path, spec: EnvSpec) -> list[Logger]:
    """Dashboards that repeat what is written to ``metrics.jsonl``."""
    if config.wandb.mode == "disabled":
        return []
    wandb, settings = asdict(config.wandb), asdict(config)
    labels = run_labels(settings)
    labels["group"] = wandb.pop("group") or labels["group"]
    labels["tags"] += [tag for tag in wandb.pop("tags") if tag not in labels["tags"]]
    shown = run_settings(settings) | {"action_repeat": spec.action_repeat}
    return [WandbLogger(folder, config=shown, **wandb, **labels)]
