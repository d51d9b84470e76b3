"""Images as observations: shrinking them, and the newest few joined into one."""

import numpy as np


def area_weights(size: int, target: int) -> np.ndarray:
    """Weights that average ``size`` pixels into ``target`` by the area that they share.

    Args:
        size: Pixels of a side.
        target: Pixels wanted, at most as many.

    Returns:
        Float32 ``[target, size]``; every row sums to one.
    """
    edges = np.linspace(0.0, size, target + 1)
    pixel = np.arange(size)
    upper = np.minimum(edges[1:, None], pixel + 1)
    lower = np.maximum(edges[:-1, None], pixel)
    return (np.maximum(upper - lower, 0.0) * target / size).astype(np.float32)


class AreaResize:
    """Shrinks images by averaging areas (OpenCV's ``INTER_AREA``).

    A pixel gets a share of a few neighbours only. Adding these up costs no more than a product of
    matrices and, unlike it, never wakes a pool of threads.

    Args:
        height: Of the images to come.
        width: Of the images to come.
        size: Height and width wanted.
    """

    def __init__(self, height: int, width: int, size: int) -> None:
        self._rows = _neighbours(area_weights(height, size))
        self._columns = _neighbours(area_weights(width, size))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Turn ``[height, width, C]`` into ``[C, size, size]``, uint8 both."""
        rows = np.zeros((len(self._rows[0][0]), *image.shape[1:]), np.float32)
        for at, share in self._rows:
            rows += image[at] * share[:, None, None]
        both = np.zeros((len(rows), len(self._columns[0][0]), image.shape[2]), np.float32)
        for at, share in self._columns:
            both += rows[:, at] * share[:, None]
        return (both + np.float32(0.5)).astype(np.uint8).transpose(2, 0, 1).copy()


def _neighbours(weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The non-zero weights ``[target, size]`` as pairs of pixel and share, each ``[target]``."""
    most = int((weights > 0).sum(1).max())
    first = np.minimum((weights > 0).argmax(1), weights.shape[1] - most)
    target = np.arange(len(weights))
    return [(first + k, weights[target, first + k]) for k in range(most)]


class FrameStack:
    """The newest ``num`` images joined along the channels, oldest first.

    An episode begins with copies of its first image. Replay keeps one image of each stack and
    joins them again when it is sampled from.

    Args:
        num: Images of a stack.
    """

    def __init__(self, num: int) -> None:
        self.num = num
        self._frames: list[np.ndarray] = []

    def begin(self, frame: np.ndarray) -> np.ndarray:
        """Start an episode with its first image ``[C, height, width]``."""
        self._frames = [frame] * self.num
        return self.joined()

    def push(self, frame: np.ndarray) -> np.ndarray:
        """Add the next image and drop the oldest."""
        self._frames = [*self._frames[1:], frame]
        return self.joined()

    def joined(self) -> np.ndarray:
        """The stack ``[num * C, height, width]``."""
        return np.concatenate(self._frames) if self.num > 1 else self._frames[0]

    def restore(self, joined: np.ndarray) -> None:
        """Take back what ``joined`` gave."""
        self._frames = list(np.split(joined, self.num))
