r"""Variational gradient descent on a quadratic: expected change of the loss, and its sign.

For ``L(m) = 0.5 sum_i lambda_i m_i^2`` and ``m' = m - eta mean_s grad L(m + sigma_i eps_s)``,

.. math::
    E[\Delta L] = \sum_i c_i \left(-\eta + \tfrac{\eta^2 \lambda_i}{2}\right)
        + \frac{\eta^2 \lambda_i^3 \sigma_i^2}{2 N}, \qquad c_i = (\lambda_i m_i)^2

References:
    Ghosh et al., "Variational Learning Finds Flatter Solutions at the Edge of Stability",
    NeurIPS 2025, arXiv:2506.12903, Theorem 3.1. ``mbrl_flat.optim.methods.vgd.threshold`` is the
    curvature at which a term changes its sign.
"""

import numpy as np


def expected_change(
    curvature: np.ndarray,
    position: np.ndarray,
    *,
    lr: float,
    sigma: np.ndarray | float,
    num_samples: int,
) -> np.ndarray:
    """Expected change of the loss in one step, along each eigenvector.

    Args:
        curvature: Eigenvalues ``[..., D]``.
        position: Coordinates of the mean along the eigenvectors ``[..., D]``.
        lr: Step size eta.
        sigma: Standard deviation of the noise along each eigenvector, broadcast to ``[..., D]``.
        num_samples: Samples N of a step.

    Returns:
        ``[..., D]``; the sum over D is the expected change of the loss.
    """
    gradient_squared = (curvature * position) ** 2
    noise = lr**2 * curvature**3 * np.square(sigma) / (2.0 * num_samples)
    return gradient_squared * (0.5 * lr**2 * curvature - lr) + noise


def simulated_change(
    curvature: np.ndarray,
    position: np.ndarray,
    *,
    lr: float,
    sigma: float,
    num_samples: int,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Change of the loss in one step, drawn many times.

    Args:
        curvature: Eigenvalues ``[D]``.
        position: Coordinates of the mean ``[D]``.
        lr: Step size eta.
        sigma: Standard deviation of the noise.
        num_samples: Samples N of a step.
        draws: Independent repetitions.
        rng: Source of the noise.

    Returns:
        Total change ``[draws]``.
    """
    # The mean of N Gaussian draws is a Gaussian draw with an N-th of the variance.
    noise = rng.normal(size=(draws, len(curvature))) * (sigma / np.sqrt(num_samples))
    moved = position - lr * curvature * (position + noise)
    return 0.5 * (curvature * (moved**2 - position**2)).sum(-1)
