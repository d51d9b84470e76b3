"""Which runs of neighbouring slots are slices: all of one part, and of one episode unless asked."""

import numpy as np


def valid_slices(wide: np.ndarray, *, heldout: bool, across_episodes: bool) -> np.ndarray:
    """Say which candidates are slices.

    Args:
        wide: Episode numbers of the slots of each candidate ``[M, T + 1]``; odd ones are held out.
        heldout: Which part is wanted.
        across_episodes: Whether a slice may run over the end of an episode.

    Returns:
        Bool ``[M]``.
    """
    if across_episodes:
        return (wide % 2 == int(heldout)).all(1)
    # Episodes are contiguous: the same number at both ends is the same number in between.
    return (wide[:, 0] == wide[:, -1]) & (wide[:, 0] % 2 == int(heldout))


def any_slice(
    episode: np.ndarray, length: int, *, heldout: bool, across_episodes: bool = False
) -> bool:
    """Say whether ``length`` transitions in a row can be found, scanning all slots.

    Args:
        episode: Episode numbers of all slots of one lane, in the order of writing ``[n]``.
        length: Transitions T.
        heldout: Which part is wanted.
        across_episodes: Whether a slice may run over the end of an episode.

    Returns:
        Whether there is one.
    """
    if len(episode) <= length:
        return False
    if not across_episodes:
        ends = np.stack([episode[: len(episode) - length], episode[length:]], 1)
        return bool(valid_slices(ends, heldout=heldout, across_episodes=False).any())
    other = np.concatenate([[0], np.cumsum(episode % 2 != int(heldout))])
    return bool(np.any(other[length + 1 :] == other[: -length - 1]))
