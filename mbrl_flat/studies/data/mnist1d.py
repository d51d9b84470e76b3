"""Ten kinds of curves, padded, stretched, sheared, shifted and made noisy: MNIST-1D.

References:
    Greydanus & Kobak, "Scaling Down Deep Learning with MNIST-1D", ICML 2024, arXiv:2011.14439:
    templates of 12 points, transformed at random and resampled to 40 points.

Deviations from the paper:
    The ten templates are ours, as are the random draws, so accuracies are not comparable with
    published ones.
"""

import numpy as np

from mbrl_flat.errors import UserError

LENGTH = 40
"""Points of a curve."""

_TEMPLATES = np.array(
    [
        [0, 2, 4, 5, 5, 5, 5, 5, 5, 4, 2, 0],
        [0, -3, -2, -1, 0, 1, 2, 3, 4, 5, 0, 0],
        [0, 3, 4, 4, 2, 0, -2, -4, -4, -3, -1, 0],
        [0, 3, 5, 3, 1, 0, 0, 1, 3, 5, 3, 0],
        [0, -1, -3, -5, -5, -5, 1, 1, 1, 1, 1, 0],
        [0, -4, -4, -4, -4, 0, 3, 5, 5, 3, -1, 0],
        [0, -3, -4, -5, -5, -5, -5, -5, -4, -2, -1, 0],
        [0, 5, 5, 4, 3, 2, 1, 0, -1, -2, 0, 0],
        [0, -2, -4, -2, 0, 0, 0, 0, -2, -4, -2, 0],
        [0, -4, -4, 0, 4, 4, 0, -4, -4, 0, 4, 0],
    ],
    np.float64,
)  # fmt: skip

_PADDING = (36, 60)
_MAX_SHIFT = 48
_SCALE, _SHEAR, _SMOOTH_NOISE, _POINT_NOISE = 0.4, 0.75, 0.25, 0.02
_SMOOTHING = 2.0


def mnist1d(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate curves, as many of each kind as of any other, up to one.

    Args:
        count: Number of signals to make.
        seed: Determines every draw.

    Returns:
        Curves ``[N, 40]``, standardised by one mean and deviation, and kinds ``[N]`` in 0..9.

    Raises:
        UserError: If ``count`` is less than 10.
    """
    if count < len(_TEMPLATES):
        raise UserError(f"mnist1d has ten kinds of curves, so size must be at least 10: {count}.")
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(_TEMPLATES)
    scales = _TEMPLATES / _TEMPLATES.std(1, keepdims=True)
    curves = np.stack([_transformed(scales[label], rng) for label in labels])
    return (curves - curves.mean()) / curves.std(), labels


def _transformed(template: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One curve ``[40]``: pad, scale, shift, add smooth noise, resample, shear, add noise."""
    padded = np.concatenate([template, np.zeros(rng.integers(*_PADDING, endpoint=True))])
    padded *= 1.0 + _SCALE * rng.uniform(-1.0, 1.0)
    padded = np.roll(padded, rng.integers(_MAX_SHIFT))
    padded += _SMOOTH_NOISE * _smoothed(rng.standard_normal(len(padded)))
    places = np.linspace(0.0, len(padded) - 1.0, LENGTH)
    curve = np.interp(places, np.arange(len(padded)), padded)
    curve += _SHEAR * rng.uniform(-1.0, 1.0) * np.linspace(-0.5, 0.5, LENGTH)
    return curve + _POINT_NOISE * rng.standard_normal(LENGTH)


def _smoothed(noise: np.ndarray) -> np.ndarray:
    """Noise filtered by a Gaussian and brought back to unit variance."""
    reach = np.arange(-int(4 * _SMOOTHING), int(4 * _SMOOTHING) + 1)
    kernel = np.exp(-0.5 * (reach / _SMOOTHING) ** 2)
    filtered = np.convolve(noise, kernel, mode="same")
    return filtered / np.sqrt(np.square(kernel).sum())
