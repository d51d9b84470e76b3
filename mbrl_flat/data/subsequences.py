"""Where subsequences may begin, and which runs of neighbouring slots are subsequences.

They are all of one part, and of one episode unless asked.
"""

from typing import TypedDict

import numpy as np

from mbrl_flat.errors import UserError


def draw_starts(
    first: np.ndarray, last: np.ndarray, length: int, num: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw candidates uniformly over all positions of all environments.

    Args:
        first: First position of each environment at which a subsequence may begin ``[num_envs]``.
        last: Position of each environment behind the last slot that may be read ``[num_envs]``.
        length: Transitions T of a subsequence.
        num: Number of starts to draw.
        rng: Source of the draw.

    Returns:
        Environment and position of each ``[num, 2]``; none if no environment is long enough.
    """
    count = np.maximum(last - first - length, 0)
    ends = np.cumsum(count)
    if ends[-1] == 0:
        return np.zeros((0, 2), np.int64)
    ticket = rng.integers(ends[-1], size=num)
    env_index = np.searchsorted(ends, ticket, side="right")
    return np.stack(
        [env_index, first[env_index] + ticket - (ends[env_index] - count[env_index])], 1
    )


def valid_subsequences(wide: np.ndarray, *, heldout: bool, across_episodes: bool) -> np.ndarray:
    """Say which candidates are subsequences.

    Args:
        wide: Episode numbers of the slots of each candidate ``[M, T + 1]``; odd ones are held out.
        heldout: Which part is wanted.
        across_episodes: Whether a subsequence may run over the end of an episode.

    Returns:
        Bool ``[M]``.
    """
    if across_episodes:
        return (wide % 2 == int(heldout)).all(1)
    # Episodes are contiguous: the same number at both ends is the same number in between.
    return (wide[:, 0] == wide[:, -1]) & (wide[:, 0] % 2 == int(heldout))


def are_subsequences(
    episode: np.ndarray,
    starts: np.ndarray,
    length: int,
    *,
    heldout: bool = False,
    across_episodes: bool = False,
) -> np.ndarray:
    """Say at which of some starts a subsequence begins.

    Args:
        episode: Episode numbers of all slots ``[num_envs, slots]``, a ring.
        starts: Environment and position of each candidate ``[M, 2]``.
        length: Transitions T of a subsequence, at least 1.
        heldout: Which part is wanted.
        across_episodes: Whether a subsequence may run over the end of an episode.

    Returns:
        Bool ``[M]``.
    """
    ends = np.arange(length + 1) if across_episodes else np.array([0, length])
    wide = episode[starts[:, :1], (starts[:, 1:] + ends) % episode.shape[1]]
    return valid_subsequences(wide, heldout=heldout, across_episodes=across_episodes)


class NoSubsequenceError(UserError):
    """No episode in the replay is long enough."""

    def __init__(self, length: int, *, heldout: bool) -> None:
        super().__init__(
            f"No {'held-out' if heldout else 'training'} episode in the replay has {length} "
            f"transitions yet; collect more steps first or shorten the horizon."
        )


class DrawKind(TypedDict, total=False):
    """Which subsequences are wanted.

    ``heldout``: from the held-out episodes instead of the training ones. ``across_episodes``:
    subsequences run over the ends of episodes; ``is_first`` marks where.
    """

    heldout: bool
    across_episodes: bool


def any_subsequence(
    episode: np.ndarray, length: int, *, heldout: bool, across_episodes: bool = False
) -> bool:
    """Say whether ``length`` transitions in a row can be found, scanning all slots.

    Args:
        episode: Episode numbers of all slots of one environment, in the order of writing ``[n]``.
        length: Transitions T of a subsequence, at least 1.
        heldout: Which part is wanted.
        across_episodes: Whether a subsequence may run over the end of an episode.

    Returns:
        Whether there is one.
    """
    if len(episode) <= length:
        return False
    if not across_episodes:
        ends = np.stack([episode[: len(episode) - length], episode[length:]], 1)
        return bool(valid_subsequences(ends, heldout=heldout, across_episodes=False).any())
    other = np.concatenate([[0], np.cumsum(episode % 2 != int(heldout))])
    return bool(np.any(other[length + 1 :] == other[: -length - 1]))
