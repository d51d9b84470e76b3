"""Play fresh episodes with the agent of a run, or with a checkpoint that its authors published."""

from contextlib import closing
from pathlib import Path

from mbrl_flat.errors import UserError
from mbrl_flat.evaluation.episodes import EvaluationConfig
from mbrl_flat.evaluation.multitask import make_evaluation, shapes_of
from mbrl_flat.interfaces import LoadsPretrained
from mbrl_flat.logging.console import say
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.loading import append_row, load_saved_agent, refused_if_unfit
from mbrl_flat.runs.parts import Parts, build_agent
from mbrl_flat.runtime.device import choose_device, use_threads
from mbrl_flat.training.checkpoint import read_plain_data


def evaluate_pretrained(
    config: RunConfig, parts: Parts, file: Path, *, episodes: int, seed: int, video: bool
) -> dict[str, float]:
    """Build the agent, give it the weights of the file and play fresh episodes.

    Args:
        config: Configuration of the agent and the environment.
        parts: The pluggable parts.
        file: The checkpoint; nothing of it is executed.
        episodes: How many are played, at least 1.
        seed: Determines the episodes; the same seed plays the same ones again.
        video: Record the first one, in ``videos`` beside the file.

    Returns:
        The row of metrics.

    Raises:
        UserError: If the agent reads no published checkpoints, or this one does not fit it.
    """
    device = choose_device(config.device)
    use_threads(config.threads)
    state = read_plain_data(file, device=device)
    if isinstance(state, dict) and {"format", "agent"} <= state.keys():
        run, name = file.parent.parent, file.stem
        raise UserError(f"{file} is of a run; evaluate it with run={run} checkpoint={name}.")
    spec = shapes_of(parts.vectors, parts.env, seed=seed)
    agent = build_agent(config, parts, spec, device)
    if not isinstance(agent, LoadsPretrained):
        raise UserError(
            f"{type(agent).__name__} reads no published checkpoints; choose agent=tdmpc2, or "
            f"say run=runs/NAME."
        )
    with refused_if_unfit(file):
        agent.load_pretrained(state)
    how = EvaluationConfig(episodes=episodes, seed=seed, env_seed=seed, video=video, progress=True)
    place = {"device": device, "folder": file.parent}
    with closing(make_evaluation(agent, parts.vectors, parts.env, spec, how, **place)) as evaluate:
        return {**evaluate(0), "seed": seed}


def evaluate_run(
    config: RunConfig,
    parts: Parts,
    folder: Path,
    *,
    episodes: int,
    seed: int,
    checkpoint: str,
    video: bool,
    out: Path | None = None,
) -> dict[str, float]:
    """Rebuild the agent from a run's folder and judge it on fresh episodes.

    Args:
        config: The run's configuration.
        parts: Its pluggable parts.
        folder: The run's folder.
        episodes: How many are played, at least 1.
        seed: Determines the episodes; the same seed plays the same ones again.
        checkpoint: ``latest`` or ``best``.
        video: Record the first one.
        out: Folder of ``evaluations.jsonl`` and ``videos``; the run's by default.

    Returns:
        The row of metrics.

    Raises:
        UserError: If there is no such checkpoint.
    """
    device = choose_device(config.device)
    agent, spec, step = load_saved_agent(
        config, parts, folder, checkpoint, device=device, seed=seed
    )
    how = EvaluationConfig(
        episodes=episodes, seed=seed, env_seed=seed, video=video, names=config.names, progress=True
    )
    say(f"{episodes} episodes of at most {spec.episode_length:,} steps, planned and by the policy")
    frame = step if config.offline_data else step * spec.action_repeat
    place = {"device": device, "folder": out or folder}
    with closing(make_evaluation(agent, parts.vectors, parts.env, spec, how, **place)) as evaluate:
        row = {**evaluate(step), "step": step, "frame": frame, "seed": seed}
    record = {"checkpoint": checkpoint, "episodes": episodes, **row}
    append_row((out or folder) / "evaluations.jsonl", record)
    return row
