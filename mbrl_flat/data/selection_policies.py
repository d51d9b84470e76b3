"""Which old samples to keep when only a few may be replayed.

References:
    Takeda, Oizumi, Karakida, arXiv:2605.27975: the samples of highest energy, against random ones
    and those of lowest energy. The others are the usual baselines of continual learning.
"""

from collections.abc import Callable

import numpy as np

from mbrl_flat.errors import UnknownNameError, UserError

Choose = Callable[[np.ndarray, np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


def _none(
    energy: np.ndarray, labels: np.ndarray, x: np.ndarray, num: int, rng: np.random.Generator
) -> np.ndarray:
    del energy, labels, x, num, rng
    return np.empty(0, np.int64)


def _random(
    energy: np.ndarray, labels: np.ndarray, x: np.ndarray, num: int, rng: np.random.Generator
) -> np.ndarray:
    del labels, x
    return rng.permutation(len(energy))[:num]


def _top(
    energy: np.ndarray, labels: np.ndarray, x: np.ndarray, num: int, rng: np.random.Generator
) -> np.ndarray:
    del labels, x, rng
    return np.argsort(-energy, kind="stable")[:num]


def _guarded_top(
    energy: np.ndarray, labels: np.ndarray, x: np.ndarray, num: int, rng: np.random.Generator
) -> np.ndarray:
    """The highest after the highest hundredth, which may be noise rather than rare."""
    del labels, x, rng
    skipped = int(np.ceil(0.01 * len(energy)))
    return np.argsort(-energy, kind="stable")[skipped : skipped + num]


def _bottom(
    energy: np.ndarray, labels: np.ndarray, x: np.ndarray, num: int, rng: np.random.Generator
) -> np.ndarray:
    del labels, x, rng
    return np.argsort(energy, kind="stable")[:num]


def _balanced(
    energy: np.ndarray, labels: np.ndarray, x: np.ndarray, num: int, rng: np.random.Generator
) -> np.ndarray:
    """One of each class in turn, at random within the class."""
    del energy, x
    shuffled = rng.permutation(len(labels))
    # How many of its class came before each one: the first of all classes come first.
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        turn[members] = np.arange(len(members))
    return shuffled[np.argsort(turn[shuffled], kind="stable")][:num]


def _cover(
    energy: np.ndarray, labels: np.ndarray, x: np.ndarray, num: int, rng: np.random.Generator
) -> np.ndarray:
    """Greedy k-centres: each next one is the farthest from all that were chosen."""
    del energy, labels
    chosen = [int(rng.integers(len(x)))]
    distance = np.square(x - x[chosen[0]]).sum(1)
    while len(chosen) < num:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(x - x[chosen[-1]]).sum(1))
    return np.array(chosen)


POLICIES: dict[str, Choose] = {
    "none": _none,
    "random": _random,
    "top_energy": _top,
    "guarded_top_energy": _guarded_top,
    "bottom_energy": _bottom,
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
    return POLICIES[policy](energy, labels, x, num, np.random.default_rng(seed))
