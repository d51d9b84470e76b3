"""Put the parts of a run together, train or evaluate, and leave a complete folder behind."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mbrl_flat.data.capacity import check_capacity, check_memory
from mbrl_flat.data.mirror import DeviceMirror, wants_mirror
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.probe import ReplayProbe
from mbrl_flat.distributed.processes import Processes
from mbrl_flat.distributed.split_update import SplitUpdate, follow
from mbrl_flat.errors import UserError, printable
from mbrl_flat.evaluation.multitask import make_evaluation
from mbrl_flat.interfaces import Agent, Inspectable, Logger, Measurement
from mbrl_flat.logging.console import ConsoleLogger, say
from mbrl_flat.logging.jsonl import JsonlLogger
from mbrl_flat.logging.labels import run_labels, run_settings
from mbrl_flat.logging.multi import MultiLogger
from mbrl_flat.logging.wandb import WandbLogger
from mbrl_flat.runs.callbacks import Callbacks
from mbrl_flat.runs.config import LoggingConfig, RunConfig
from mbrl_flat.runs.heading import describe_run
from mbrl_flat.runs.loading import (
    apply_settings,
    changed_settings,
    check_shapes,
    refused_if_unfit,
    shapes_of_spec,
)
from mbrl_flat.runs.offline_data import check_offline, fill_replay
from mbrl_flat.runs.parts import Parts, build_agent
from mbrl_flat.runs.provenance import write_environment
from mbrl_flat.runtime.device import machine_memory, use_threads
from mbrl_flat.runtime.interrupts import ended_by_signals, stop_requests
from mbrl_flat.specs import EnvSpec
from mbrl_flat.training.checkpoint import CheckpointFolder
from mbrl_flat.training.collector import TrainEnvs
from mbrl_flat.training.energy_sampler import UNIFORM, EnergySampler
from mbrl_flat.training.train_config import check_steps
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
        UserError: If the newest checkpoint does not fit this run, or is gone.
    """
    processes = processes or Processes()
    with ExitStack() as stack:
        with ended_by_signals():
            trainer, saved = build_trainer(
                config, parts, folder, processes, stack, callbacks=callbacks
            )
        request = stack.enter_context(stop_requests())
        if saved is None:
            if trainer.logger.position > 0:
                raise UserError(
                    f"{folder} has recorded metrics but no checkpoint, so it cannot be resumed; "
                    f"put checkpoints/latest.pt back, or remove metrics.jsonl to start again."
                )
            say(*describe_run(config, trainer, folder, processes.device(config.device)))
            trainer.start()
        else:
            changed = changed_settings(folder, config)
            with refused_if_unfit(trainer.checkpoints.latest):
                trainer.load_state_dict(saved)
            apply_settings(folder, trainer.agent, changed)
            say(f"run folder: {folder}")
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
    envs = _environments(config, parts, stack)
    spec = envs.spec
    checkpoints.env = {"shapes": shapes_of_spec(spec), "spaces": dict(spec.native)}
    if saved is not None:
        check_shapes(saved, spec, folder)
    check_offline(config, spec)
    schedule = config.schedule(spec.episode_length)
    agent = build_agent(config, parts, spec, device, sync=_sync(config, processes))
    check_steps(schedule, num_envs=config.num_envs, learns=isinstance(agent, Inspectable))
    replay = _replay(config, spec, agent, device, folder)
    if config.offline_data and saved is None:
        fill_replay(replay, config, spec, folder)
    write_environment(folder, device)
    callbacks, logs = callbacks or Callbacks(), config.logging
    console = _console(config, folder)
    mirrors = _mirrors(logs, asdict(config), folder, spec)
    logger = MultiLogger(JsonlLogger(folder / "metrics.jsonl"), console, *mirrors, callbacks)
    stack.callback(logger.close)
    trainer = Trainer(
        agent,
        None if config.offline_data else envs,
        replay,
        logger,
        config=schedule,
        checkpoints=checkpoints,
        evaluations=_evaluations(config, parts, agent, spec, stack, device=device, folder=folder),
        probes=_probes(parts, agent, replay),
        device=device,
        on_step=callbacks.after(console.advance),
        on_update=console.learn,
        update=SplitUpdate(agent, spec, processes, device) if processes.count > 1 else None,
        sampler=_sampler(config, replay, agent),
    )
    return trainer, saved


def _console(config: RunConfig, folder: Path) -> ConsoleLogger:
    return ConsoleLogger(
        config.logging.steps,
        updates_per_step=config.updates_per_step,
        description=printable(folder.name),
        progress=config.logging.progress,
    )


def _environments(config: RunConfig, parts: Parts, stack: ExitStack) -> TrainEnvs:
    make = partial(parts.vectors.make_vector, parts.env)
    envs = make(num_envs=config.num_envs, seed=config.seed, parallel=config.parallel_envs)
    stack.callback(envs.close)
    return TrainEnvs(
        vector=envs,
        spec=parts.vectors.spec_of(envs),
        save=partial(parts.vectors.vector_state, envs),
        restore=partial(parts.vectors.restore_vector, envs),
    )


def _evaluations(
    config: RunConfig, parts: Parts, agent: Agent, spec: EnvSpec, stack: ExitStack, **place: Any
) -> list[Measurement]:
    if config.eval_every <= 0:
        return []
    how, baseline = config.evaluation, parts.baseline(spec)
    evaluation = make_evaluation(
        agent, parts.vectors, parts.env, spec, how, baseline=baseline, **place
    )
    stack.callback(evaluation.close)
    return [evaluation]


def _probes(parts: Parts, agent: Agent, replay: Replay) -> list[Measurement]:
    if not isinstance(agent, Inspectable):
        return []
    return [ReplayProbe(probe, agent, replay) for probe in parts.probes.values()]


def _replay(
    config: RunConfig, spec: EnvSpec, agent: Agent, device: torch.device, folder: Path
) -> Replay:
    settings = config.replay_config
    replay = Replay(
        spec,
        settings.capacity,
        num_envs=config.num_envs,
        heldout_fraction=settings.heldout_fraction,
        complete_only=not agent.across_episodes,
        seed=config.seed,
        folder=settings.folder(folder),
    )
    check_capacity(replay, spec, length=agent.sequence_length, steps=config.steps)
    check_memory(
        replay,
        rows=agent.batch_size * (agent.sequence_length + 1),
        steps=config.steps,
        memory=machine_memory(),
        on_disk=settings.storage == "disk",
    )
    if wants_mirror(settings.mirror, replay.nbytes, device):
        replay.mirror = DeviceMirror(replay.arrays, device)
    return replay


def _sampler(config: RunConfig, replay: Replay, agent: Agent) -> EnergySampler | None:
    if config.replay.policy == UNIFORM:
        return None
    return EnergySampler(replay, agent, config.replay, seed=config.seed)


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
    return config.sync if processes.count > 1 else "none"


def _mirrors(
    config: LoggingConfig, settings: dict[str, Any], folder: Path, spec: EnvSpec
) -> list[Logger]:
    """Dashboards that repeat what is written to ``metrics.jsonl``."""
    if config.wandb.mode == "disabled":
        return []
    wandb, labels = asdict(config.wandb), run_labels(settings)
    labels["group"] = wandb.pop("group") or labels["group"]
    labels["tags"] += [tag for tag in wandb.pop("tags") if tag not in labels["tags"]]
    shown = run_settings(settings) | {"action_repeat": spec.action_repeat}
    return [WandbLogger(folder, config=shown, **wandb, **labels)]
