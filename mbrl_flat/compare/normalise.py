"""Returns on a scale that tasks share, for runs that did not log it themselves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mbrl_flat.analysis.stats import normalise
from mbrl_flat.compare.runs import Run, Series, task_names
from mbrl_flat.evaluation.reference_scores import ScoreScale, score_scale

_SCORE, _RETURN = "eval/normalised_score", "eval/return_mean"


def with_normalised_scores(
    runs: Sequence[Run], *, expert: str | None = None
) -> tuple[list[Run], dict[str, str]]:
    """Add ``eval/normalised_score`` where the task has a scale.

    Args:
        runs: All runs.
        expert: Published method whose final score counts as 1; without it the scale of the task.
            Zero is then the random policy: as published, or else as the runs measured it.

    Returns:
        The runs, and what the scale of each task is in words.
    """
    random: dict[tuple[str, str], list[np.ndarray]] = {}
    for run in runs:
        random.setdefault(run.task_key, []).append(run.series("eval/random_return_mean").values)
    found = {key: np.concatenate(values) for key, values in random.items()}
    known = {
        key: score_scale(*key, expert=expert, random=float(np.mean(v)) if len(v) else 0.0)
        for key, v in found.items()
    }
    scaled: list[Run] = []
    scales: dict[str, str] = {}
    names = task_names(runs)
    for run in runs:
        task, scale = names[run.task_key], known[run.task_key]
        if scale is None:
            logged = len(run.series(_SCORE).steps) > 0
            scales.setdefault(task, "as the environment defines it" if logged else "none")
            scaled.append(run if expert is None else _without(run))
            continue
        scales[task] = scale.words
        scaled.append(_with(run, scale))
    return scaled, scales


def _with(run: Run, scale: ScoreScale) -> Run:
    returns = run.series(_RETURN)
    scores = normalise(returns.values, random=scale.random, reference=scale.reference)
    return replace(run, metrics={**run.metrics, _SCORE: Series(returns.steps, scores)})


def _without(run: Run) -> Run:
    """Scores on another scale than the one asked for are no scores."""
    kept = {name: series for name, series in run.metrics.items() if name != _SCORE}
    return replace(run, metrics=kept)
