"""Judge a checkpoint that the authors of an agent published, without a run of ours around it."""

from pathlib import Path

from mbrl_flat.checkpoint import read_plain_data
from mbrl_flat.device import choose_device, use_threads
from mbrl_flat.errors import UserError
from mbrl_flat.protocols import ReadsPublished
from mbrl_flat.run import Parts, build_agent
from mbrl_flat.run_config import RunConfig
from mbrl_flat.task_evaluation import make_evaluation, shapes_of


def evaluate_published(
    config: RunConfig, parts: Parts, file: Path, *, episodes: int, seed: int, video: bool
) -> dict[str, float]:
    """Build the agent, give it the weights of the file and play fresh episodes.

    Args:
        config: Configuration of the agent and the environment.
        parts: The pluggable parts.
        file: The checkpoint; nothing of it is executed.
        episodes: How many.
        seed: Determines them.
        video: Record the first one, in ``videos`` beside the file.

    Returns:
        The row of metrics.

    Raises:
        UserError: If the agent reads no published checkpoints, or this one does not fit it.
    """
    device = choose_device(config.device)
    use_threads(config.threads)
    state = read_plain_data(file, device=device)
    spec = shapes_of(parts.vectors, parts.env, seed=seed)
    agent = build_agent(config, parts, spec, device)
    if not isinstance(agent, ReadsPublished):
        raise UserError(
            f"{type(agent).__name__} reads no published checkpoints; choose agent=tdmpc2, or "
            f"say run=runs/NAME."
        )
    agent.load_published(state)
    evaluation = make_evaluation(
        agent,
        parts.vectors.make_vector,
        parts.env,
        spec,
        episodes=episodes,
        seed=seed,
        env_seed=seed,
        device=device,
        videos=file.parent / "videos" if video else None,
    )
    try:
        return {**evaluation(0), "seed": seed}
    finally:
        evaluation.close()
