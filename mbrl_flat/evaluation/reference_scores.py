"""Published scores that runs can be held against; every one names its source."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

_SHORT_DOMAINS = {"cup-": "ball-in-cup-", "pointmass-": "point-mass-"}
_FILES = ("dmc", "humanoid_bench", "atari")


@dataclass(frozen=True, kw_only=True)
class ReferenceScore:
    """One published number.

    Attributes:
        env: Family of the task, such as ``atari``: MinAtar has a breakout of its own.
        task: As it is called in this project.
        method: As the source calls it; ``random`` and ``human`` are players, not methods.
        frame: Simulator frames seen when it was measured.
        mean: Episode return, averaged over seeds.
        std: Spread over seeds; NaN if it was not published.
        seeds: How many; 0 if it was not published.
        source: Repository and file.
    """

    env: str
    task: str
    method: str
    frame: int
    mean: float
    std: float
    seeds: int
    source: str


class ScoreScale(NamedTuple):
    """Where 0 and 1 of a normalised score lie, in units of return."""

    random: float
    reference: float
    words: str
    """What the two are."""


@cache
def load_references() -> tuple[ReferenceScore, ...]:
    """Read every packaged table of published scores."""
    scores: list[ReferenceScore] = []
    folder = resources.files("mbrl_flat.configs") / "reference"
    for name in _FILES:
        text = (folder / f"{name}.csv").read_text(encoding="utf-8")
        scores += [_parse(name, row) for row in csv.DictReader(text.splitlines())]
    return tuple(scores)


def is_task(score: ReferenceScore, *, env: str, task: str) -> bool:
    """Whether a score is of this task; the sources do not agree on how to spell one."""
    return score.env == env and one_spelling(env, score.task) == one_spelling(env, task)


def one_spelling(env: str, task: str) -> str:
    """A name that all spellings of a task have in common.

    Args:
        env: Family of the task, such as ``dmc``.
        task: Such as ``ball_in_cup-catch``, or ``cup-catch`` as the published tables have it.

    Returns:
        Such as ``ball-in-cup-catch``.
    """
    name = task.replace("_", "-")
    if env == "dmc":
        for short, full in _SHORT_DOMAINS.items():
            name = name.replace(short, full) if name.startswith(short) else name
    return name


@cache
def reference_curves(env: str, task: str) -> Mapping[str, Sequence[ReferenceScore]]:
    """Published scores on one task by method, in the order of frames; empty if there are none."""
    curves: dict[str, list[ReferenceScore]] = {}
    for score in load_references():
        if is_task(score, env=env, task=task):
            curves.setdefault(score.method, []).append(score)
    return {m: sorted(scores, key=lambda s: s.frame) for m, scores in curves.items()}


def score_scale(
    env: str, task: str, *, expert: str | None = None, random: float = 0.0
) -> ScoreScale | None:
    """Find the scale on which scores of different tasks can be averaged.

    Args:
        env: Family of the task, such as ``dmc``.
        task: Name of the task, as in ``env.task``.
        expert: Published method whose last score is 1; without it the human player where there is
            one (Atari), or the largest episode return (Control Suite: rewards in [0, 1]
            over 1000 frames).
        random: Return of a random policy, for an expert's scale where none is published.

    Returns:
        The scale; ``None`` if the task has none.
    """
    curves = reference_curves(env, task)
    if "random" in curves:
        random = curves["random"][-1].mean
    if expert is not None:
        if expert not in curves or curves[expert][-1].mean == random:
            return None
        words = (
            f"random policy 0 ({random:g}), {expert} as published 1 ({curves[expert][-1].mean:g})"
        )
        return ScoreScale(random, curves[expert][-1].mean, words)
    if {"random", "human"} <= curves.keys():
        human = curves["human"][-1].mean
        return ScoreScale(random, human, f"random player 0 ({random:g}), human 1 ({human:g})")
    if env == "dmc":
        return ScoreScale(0.0, 1000.0, "return / 1000")
    return None


def _parse(env: str, row: dict[str, str]) -> ReferenceScore:
    return ReferenceScore(
        env=env,
        task=row["task"],
        method=row["method"],
        frame=int(row["env_step"]),
        mean=float(row["mean"]),
        std=float(row["std"] or "nan"),
        seeds=int(row["seeds"] or 0),
        source=row["source"],
    )
