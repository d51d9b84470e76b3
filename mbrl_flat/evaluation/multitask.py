"""The evaluation of a run: of its task, or of each of several in turn and their mean."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Env

from mbrl_flat.evaluation.episodes import EvaluationConfig
from mbrl_flat.evaluation.evaluator import EpisodeEvaluator
from mbrl_flat.evaluation.reference_scores import score_scale
from mbrl_flat.interfaces import Agent, SeveralTasks
from mbrl_flat.specs import EnvSpec


class TaskEvaluation:
    """Evaluates one task after the other.

    What one evaluation calls ``eval/return_mean`` is ``eval/<task>/return_mean`` here, likewise for
    all its names; under the plain name is the mean over the tasks that have it.

    Args:
        evaluations: By the names of the tasks.
    """

    def __init__(self, evaluations: Mapping[str, EpisodeEvaluator]) -> None:
        self.evaluations = dict(evaluations)

    def __call__(self, step: int) -> Mapping[str, float]:
        """Play every task and summarize."""
        rows = {task: evaluation(step) for task, evaluation in self.evaluations.items()}
        found: dict[str, float] = {}
        for task, row in rows.items():
            for name, value in row.items():
                group, _, quantity = name.rpartition("/")
                found[f"{group}/{task}/{quantity}"] = value
        for name in dict.fromkeys(name for row in rows.values() for name in row):
            found[name] = float(np.mean([row[name] for row in rows.values() if name in row]))
        return found

    def close(self) -> None:
        """Free the environments."""
        for evaluation in self.evaluations.values():
            evaluation.close()

    def state_dict(self) -> dict[str, Any]:
        """State of the evaluation of every task."""
        return {task: evaluation.state_dict() for task, evaluation in self.evaluations.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for task, evaluation in self.evaluations.items():
            evaluation.load_state_dict(state[task])


def shapes_of(vectors: Any, env: Callable[..., Env[Any, Any]], *, seed: int) -> EnvSpec:
    """Build one environment, say its shapes and close it.

    Args:
        vectors: ``make_vector`` and ``spec_of``.
        env: Makes the environment.
        seed: Seed of the environment that is made for it and closed.

    Returns:
        The shapes.
    """
    envs = vectors.make_vector(env, num_envs=1, seed=seed)
    spec = vectors.spec_of(envs)
    envs.close()
    return spec


def make_evaluation(
    agent: Agent,
    vectors: Any,
    env: Callable[..., Env[Any, Any]],
    spec: EnvSpec,
    config: EvaluationConfig,
    *,
    device: torch.device,
    folder: Path,
    baseline: Agent | None = None,
) -> EpisodeEvaluator | TaskEvaluation:
    """Build the evaluation of a run.

    Args:
        agent: Who is judged.
        vectors: ``make_vector``, which puts environments side by side.
        env: Makes one of them; where there are several tasks it takes the ``index`` of one.
        spec: Their shapes, and the tasks.
        config: How many episodes, and which.
        device: Where the agent draws its noise.
        folder: Of the run; videos are in ``videos`` there, of each task in a folder of its own.
        baseline: Judged once.

    Returns:
        The evaluation, with environments of its own.
    """
    names, videos = config.names, folder / "videos" if config.video else None
    scale = score_scale(names.get("env", ""), names.get("task", "")) if names else None

    def one(env: Any, spec: EnvSpec, **settings: Any) -> EpisodeEvaluator:
        seed, render = config.env_seed, config.video
        envs = vectors.make_vector(env, num_envs=config.episodes, seed=seed, render=render)
        how = {"episodes": config.episodes, "seed": config.seed, "device": device}
        return EpisodeEvaluator(
            agent,
            envs,
            spec,
            **how,
            baseline=baseline,
            scale=scale,
            progress=config.progress,
            **settings,
        )

    if not spec.tasks:
        return one(env, spec, videos=videos)
    plain = (None,) * len(spec.tasks)
    discounts = agent.task_discounts if isinstance(agent, SeveralTasks) else plain
    return TaskEvaluation(
        {
            task.name: one(
                partial(env, index=index),
                replace(spec, score_range=task.score_range),
                videos=videos / task.name if videos is not None else None,
                discount=discounts[index],
            )
            for index, task in enumerate(spec.tasks)
        }
    )
