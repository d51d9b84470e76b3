r"""Actions of seeded policies: independent draws and smoothed noise of many strengths.

.. math::
    x_t = c \, x_{t-1} + \sqrt{1 - c^2} \, z_t, \qquad z_t \sim N(0, I), \qquad
    a_t = \mathrm{clip}(s \, x_t, -1, 1)

Every episode draws its own correlation c and strength s, so that episodes differ as much as those
of different policies, and all of them come from one distribution.
"""

import numpy as np

CORRELATIONS = (0.0, 0.5, 0.9, 0.97)
"""Correlations of successive actions, each as likely."""

STRENGTHS = (0.2, 1.0)
"""Bounds of the standard deviation before clipping, which is uniform between them."""


def action_sequence(num_steps: int, size: int, *, rng: np.random.Generator) -> np.ndarray:
    """Draw the actions of one episode.

    Args:
        num_steps: Length T.
        size: Size A of an action.
        rng: Source of correlation, strength and noise.

    Returns:
        Float32 ``[T, A]`` in [-1, 1].
    """
    correlation = float(rng.choice(CORRELATIONS))
    strength = float(rng.uniform(*STRENGTHS))
    noise = rng.standard_normal((num_steps, size))
    fresh = np.sqrt(1.0 - correlation**2)
    state, actions = noise[0], [noise[0]]
    for draw in noise[1:]:
        state = correlation * state + fresh * draw
        actions.append(state)
    return np.clip(strength * np.stack(actions), -1.0, 1.0).astype(np.float32)
