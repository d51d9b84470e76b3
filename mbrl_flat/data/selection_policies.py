"""Which old samples to keep when only a few may be replayed.

References:
    Takeda, Oizumi, Karakida, arXiv:2605.27975: the samples of highest energy, against random ones
    and those of lowest energy. The others are the usual baselines of continual learning.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mbrl_flat.errors import UnknownNameError, UserError


class Candidates(NamedTuple):
    """N samples that may be kept."""

    energy: np.ndarray
    """``[N]``."""
    labels: np.ndarray
    """Class of each ``[N]``."""
    x: np.ndarray
    """The samples ``[N, D]``."""


Choose = Callable[[Candidates, int, np.random.Generator], np.ndarray]
"""Indices ``[num]`` of those that are kept."""


def _top(old: Candidates, num: int, _rng: np.random.Generator, *, skipped: int = 0) -> np.ndarray:
    return np.argsort(-old.energy, kind="stable")[skipped : skipped + num]


def _guarded_top(old: Candidates, num: int, rng: np.random.Generator) -> np.ndarray:
    """The highest after the highest hundredth, which may be noise rather than rare."""
    return _top(old, num, rng, skipped=int(np.ceil(0.01 * len(old.energy))))


def _balanced(old: Candidates, num: int, rng: np.random.Generator) -> np.ndarray:
    """One of each class in turn, at random within the class."""
    shuffled = rng.permutation(len(old.labels))
    # How many of its class came before each one: the first of all classes come first.
    turn = np.empty(len(shuffled), np.int64)
    for label in np.unique(old.labels):
        members = shuffled[old.labels[shuffled] == label]
        turn[members] = np.arange(len(members))
    return shuffled[np.argsort(turn[shuffled], kind="stable")][:num]


def _cover(old: Candidates, num: int, rng: np.random.Generator) -> np.ndarray:
    """Greedy k-centres: each next one is the farthest from all that were chosen."""
    x = old.x
    chosen = [int(rng.integers(len(x)))]
    distance = np.square(x - x[chosen[0]]).sum(1)
    while len(chosen) < num:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(x - x[chosen[-1]]).sum(1))
    return np.array(chosen)


POLICIES: dict[str, Choose] = {
    "none": lambda _old, _num, _rng: np.empty(0, np.int64),
    "random": lambda old, num, rng: rng.permutation(len(old.energy))[:num],
    "top_energy": _top,
    "guarded_top_energy": _guarded_top,
    "bottom_energy": lambda old, num, _rng: np.argsort(old.energy, kind="stable")[:num],
    "class_balanced": _balanced,
    "cover": _cover,
}
"""Replay policies by name."""


def choose_replay(
    policy: str,
    *,
    energy: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
    num: int,
    seed: int,
) -> np.ndarray:
    """Choose which samples to keep.

    Args:
        policy: A name of ``POLICIES``.
        energy: Energy of each sample ``[N]``.
        labels: Class of each sample ``[N]``.
        x: The samples ``[N, D]``.
        num: How many to keep.
        seed: Determines what is drawn.

    Returns:
        Distinct indices ``[num]``; none for the policy ``none``.

    Raises:
        UnknownNameError: If there is no such policy.
        UserError: If there are too few samples.
    """
    if policy not in POLICIES:
        raise UnknownNameError("replay policy", policy, POLICIES)
    if not 0 < num <= len(energy):
        raise UserError(f"Cannot keep {num} of {len(energy)} samples; choose between 1 and all.")
    return POLICIES[policy](Candidates(energy, labels, x), num, np.random.default_rng(seed))
