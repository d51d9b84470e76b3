"""Where variational gradient descent on a quadratic descends: probability maps by simulation.

``mbrl_flat.optim.methods.vgd.threshold`` is the curvature at which the expected change of the loss
is zero.

References:
    Ghosh et al., "Variational Learning Finds Flatter Solutions at the Edge of Stability",
    NeurIPS 2025, arXiv:2506.12903, Theorem 3.1.
"""

import numpy as np


def descent_probability(
    curvatures: np.ndarray,
    variances: np.ndarray,
    *,
    lr: float,
    num_samples: int,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Share of single steps that lower the loss of a one-dimensional quadratic.

    Args:
        curvatures: Values of lambda ``[L]``; the gradient at the start is one.
        variances: Values of the noise's variance ``[V]``.
        lr: Step size eta of gradient descent, above 0.
        num_samples: Samples of a step.
        draws: Steps behind each entry.
        rng: Source of the noise.

    Returns:
        ``[L, V]``.
    """
    found = np.empty((len(curvatures), len(variances)))
    for i, curvature in enumerate(curvatures):
        for j, variance in enumerate(variances):
            change = simulated_change(
                np.array([curvature]),
                np.array([1.0 / curvature]),
                lr=lr,
                sigma=float(np.sqrt(variance)),
                num_samples=num_samples,
                draws=draws,
                rng=rng,
            )
            found[i, j] = (change < 0.0).mean()
    return found


def simulated_threshold(
    variance: float, *, lr: float, num_samples: int, draws: int, rng: np.random.Generator
) -> float:
    """Curvature at which the simulated mean change of the loss vanishes, gradient one.

    Bisection with the same draws of the noise at every curvature.

    Args:
        variance: Of the noise.
        lr: Step size eta of gradient descent, above 0.
        num_samples: Samples of a step.
        draws: Steps behind each mean.
        rng: Source of the noise.

    Returns:
        The curvature.
    """
    seed = int(rng.integers(2**32))
    low, high = 1e-3 / lr, 2.0 / lr
    for _ in range(40):
        middle = 0.5 * (low + high)
        change = simulated_change(
            np.array([middle]),
            np.array([1.0 / middle]),
            lr=lr,
            sigma=float(np.sqrt(variance)),
            num_samples=num_samples,
            draws=draws,
            rng=np.random.default_rng(seed),
        )
        if change.mean() < 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


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
