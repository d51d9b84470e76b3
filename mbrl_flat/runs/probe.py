"""Apply a diagnostic to a saved run on request.

A probe takes the replay (sharpness, rollout errors), or the whole run, to play episodes (value
errors, robustness) or to write files (landscape). The run is only read; results go beside it.
"""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mbrl_flat.data.episode import Episode
from mbrl_flat.data.replay import Replay
from mbrl_flat.diagnostics.landscape_probe import LandscapeProbe
from mbrl_flat.diagnostics.probe import NothingToMeasure, ProbedRun, RunProbe
from mbrl_flat.errors import UserError
from mbrl_flat.evaluation.episodes import evaluate
from mbrl_flat.evaluation.multitask import shapes_of
from mbrl_flat.interfaces import Agent, Inspectable, Mode
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.loading import append_row, load_agent, refused_if_unfit
from mbrl_flat.runs.parts import Parts, build_agent
from mbrl_flat.runtime.device import choose_device, use_threads
from mbrl_flat.specs import EnvSpec
from mbrl_flat.training.checkpoint import CheckpointFolder


def probe_run(
    config: RunConfig,
    parts: Parts,
    folder: Path,
    *,
    name: str,
    probe: Any,
    episodes: int,
    seed: int,
) -> dict[str, float]:
    """Apply one probe to the newest checkpoint of a run.

    Args:
        config: The run's configuration.
        parts: Its pluggable parts.
        folder: The run's folder; the row is appended to its ``probes.jsonl``.
        name: Name of the probe in ``configs/probe``.
        probe: What that configuration builds.
        episodes: Episodes for probes that play.
        seed: Determines episodes and batches.

    Returns:
        The row of metrics.

    Raises:
        UserError: If the agent cannot be looked into, or there is nothing to measure on yet.
    """
    device = choose_device(config.device)
    use_threads(config.threads)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    saved = checkpoints.load_latest(device=device)
    spec = shapes_of(parts.vectors, parts.env, seed=seed)
    if spec.tasks and isinstance(probe, RunProbe) and not isinstance(probe, LandscapeProbe):
        raise UserError(
            f"probe={name} plays one task, and this run has several; mbrl-flat-evaluate gives "
            "the value errors of each."
        )
    agent: Agent = build_agent(config, parts, spec, device)
    if not isinstance(agent, Inspectable):
        raise UserError("The agent of this run has no world model to look into.")
    load_agent(agent, saved, spec, checkpoints.latest)
    replay = _saved_replay(config, checkpoints, saved, spec, agent)
    play = partial(_play, agent, spec, parts, episodes=episodes, seed=seed, device=device)
    run = ProbedRun(
        agent=agent, replay=replay, play=play, folder=folder, step=int(saved["step"]), seed=seed
    )
    try:
        row = dict(probe.measure_run(run) if isinstance(probe, RunProbe) else probe(agent, replay))
    except NothingToMeasure as reason:
        raise UserError(f"probe={name} measured nothing in {folder}: {reason}") from reason
    append_row(folder / "probes.jsonl", {"probe": name, "step": run.step, "seed": seed, **row})
    return row


def _play(
    probed: Any,
    spec: EnvSpec,
    parts: Parts,
    mode: Mode,
    *,
    wrap: Callable[[Any], Any] | None = None,
    agent: Any = None,
    **how: Any,
) -> list[Episode]:
    """Episodes of the probed agent or of another one, in environments that ``wrap`` changes."""
    factory = parts.env if wrap is None else partial(_wrapped, parts.env, wrap)
    envs = parts.vectors.make_vector(factory, num_envs=how["episodes"], seed=how["seed"])
    with closing(envs):
        return evaluate(agent or probed, envs, spec, mode=mode, **how)


def _saved_replay(
    config: RunConfig, checkpoints: CheckpointFolder, saved: Any, spec: EnvSpec, agent: Any
) -> Replay:
    with TemporaryDirectory() as scratch, refused_if_unfit(checkpoints.latest):
        replay = Replay(
            spec,
            config.replay_config.capacity,
            num_envs=config.num_envs,
            complete_only=not agent.across_episodes,
            folder=config.replay_config.folder(Path(scratch)),
        )
        checkpoints.read_replay(saved, replay)
    return replay


def _wrapped(
    factory: Callable[..., Any], wrap: Callable[[Any], Any], *, seed: int, render: bool = False
) -> Any:
    """An environment that ``wrap`` changes, as the agent acts in it."""
    env = factory(seed=seed, render=render)
    env.env = wrap(env.env)
    return env
