r"""The smallest model with progressive sharpening and an edge of stability.

A two-layer linear network of width one on a two-dimensional input, ``f(x) = alpha (beta1 x1 +
beta2 x2)``, with independent coordinates of variances ``l1 >> l2`` and target ``x2``. Its
population loss has an oscillating and a converging part:

.. math::
    L = \tfrac{1}{2} l_1 (\alpha \beta_1)^2 + \tfrac{1}{2} l_2 (\alpha \beta_2 - 1)^2

The first input is large but irrelevant: along ``beta1`` the curvature is ``l1 alpha^2``. While
``alpha beta2 < 1`` the signal pushes alpha up (progressive sharpening); past ``2 / eta`` the
oscillation of ``beta1`` grows and pushes alpha back (self-stabilisation).

References:
    Liu, Zhang, Du, Zhao, "A Minimalist Example of Edge-of-Stability and Progressive Sharpening",
    NeurIPS 2025, arXiv:2503.02809: the model and its phases.
    Kreisler et al., "Gradient Descent Monotonically Decreases the Sharpness of Gradient Flow
    Solutions in Scalar Networks and Beyond", ICML 2023: the sharpness of the flow's solution.

Deviations from the paper:
    Plain gradient descent, where the paper analyses a projected one whose set is not known to us.
    The closed form of the flow's solution is derived here. The paper's constants and its bound's
    delta are not known to us; the settings that the experiments use are ours.
"""

from dataclasses import dataclass

import numpy as np

from mbrl_flat.errors import NonFiniteError, UserError

Theta = np.ndarray
"""Parameters ``[..., 3]``: alpha, beta1, beta2, float64."""


@dataclass(frozen=True, kw_only=True)
class MinimalExample:
    """The model.

    Attributes:
        l1: Variance of the large, irrelevant input.
        l2: Variance of the small, relevant input.
    """

    l1: float = 1.0
    l2: float = 0.001

    def __post_init__(self) -> None:
        if not (self.l1 > 0.0 and self.l2 > 0.0):
            raise UserError(f"l1 and l2 must be positive, got {self.l1} and {self.l2}.")

    def loss_parts(self, theta: Theta) -> tuple[np.ndarray, np.ndarray]:
        """The oscillating and the converging part of the loss, each ``[...]``."""
        alpha, beta1, beta2 = np.moveaxis(theta, -1, 0)
        oscillating = 0.5 * self.l1 * (alpha * beta1) ** 2
        return oscillating, 0.5 * self.l2 * (alpha * beta2 - 1.0) ** 2

    def loss(self, theta: Theta) -> np.ndarray:
        """The population loss ``[...]``."""
        return np.add(*self.loss_parts(theta))

    def gradient(self, theta: Theta) -> np.ndarray:
        """Gradient of the loss ``[..., 3]``."""
        alpha, beta1, beta2 = np.moveaxis(theta, -1, 0)
        residual = alpha * beta2 - 1.0
        return np.stack(
            [
                self.l1 * alpha * beta1**2 + self.l2 * beta2 * residual,
                self.l1 * alpha**2 * beta1,
                self.l2 * alpha * residual,
            ],
            -1,
        )

    def hessian(self, theta: Theta) -> np.ndarray:
        """Hessian of the loss ``[..., 3, 3]``."""
        alpha, beta1, beta2 = np.moveaxis(theta, -1, 0)
        l1, l2 = self.l1, self.l2
        zero = np.zeros_like(alpha)
        cross1 = 2.0 * l1 * alpha * beta1
        cross2 = l2 * (2.0 * alpha * beta2 - 1.0)
        rows = [
            [l1 * beta1**2 + l2 * beta2**2, cross1, cross2],
            [cross1, l1 * alpha**2, zero],
            [cross2, zero, l2 * alpha**2],
        ]
        return np.stack([np.stack(row, -1) for row in rows], -2)

    def sharpness(self, theta: Theta) -> np.ndarray:
        """Largest eigenvalue of the Hessian ``[...]``."""
        return np.linalg.eigvalsh(self.hessian(theta))[..., -1]

    def invariant(self, theta: Theta) -> np.ndarray:
        """What gradient flow conserves, ``alpha^2 - beta1^2 - beta2^2``, ``[...]``."""
        alpha, beta1, beta2 = np.moveaxis(theta, -1, 0)
        return alpha**2 - beta1**2 - beta2**2

    def flow_solution_sharpness(self, theta: Theta) -> np.ndarray:
        r"""Sharpness of the minimum that gradient flow from ``theta`` ends in, ``[...]``.

        With :math:`C` conserved and :math:`\beta_1 = 0, \alpha \beta_2 = 1` in the end,
        :math:`\alpha_\infty^2 = (C + \sqrt{C^2 + 4}) / 2`, and the sharpness there is
        :math:`\max(l_1 \alpha_\infty^2, l_2 (\alpha_\infty^2 + \alpha_\infty^{-2}))`.

        Args:
            theta: ``[..., 3]``.

        Returns:
            The sharpness of that minimum.
        """
        c = self.invariant(theta)
        alpha2 = 0.5 * (c + np.hypot(c, 2.0))
        return np.maximum(self.l1 * alpha2, self.l2 * (alpha2 + 1.0 / alpha2))

    def descend(self, start: Theta, *, lr: float, steps: int) -> np.ndarray:
        """Run gradient descent.

        Args:
            start: ``[3]``.
            lr: Step size eta.
            steps: How many.

        Returns:
            The trajectory ``[steps + 1, 3]``, the start included.

        Raises:
            NonFiniteError: If it diverges; the message names the step.
            UserError: If ``beta1`` starts at 0, from where nothing can oscillate.
        """
        if start[1] == 0.0:
            raise UserError("beta1 must not start at 0: it would stay there and never oscillate.")
        path = np.empty((steps + 1, 3))
        path[0] = start
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(steps):
                path[step + 1] = path[step] - lr * self.gradient(path[step])
                if not np.isfinite(path[step + 1]).all():
                    raise NonFiniteError(
                        f"Gradient descent with lr={lr} diverged at step {step + 1}; "
                        f"choose a smaller lr."
                    )
        return path

    def flow(self, start: Theta, *, time: float, steps: int) -> np.ndarray:
        """Integrate gradient flow by the classical Runge-Kutta method.

        Args:
            start: ``[3]``.
            time: How long, in units in which gradient descent advances by ``lr`` a step.
            steps: Equal steps of the integrator.

        Returns:
            The trajectory ``[steps + 1, 3]``.
        """
        h = time / steps
        path = np.empty((steps + 1, 3))
        path[0] = start
        for step in range(steps):
            theta = path[step]
            k1 = -self.gradient(theta)
            k2 = -self.gradient(theta + 0.5 * h * k1)
            k3 = -self.gradient(theta + 0.5 * h * k2)
            k4 = -self.gradient(theta + h * k3)
            path[step + 1] = theta + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        return path


def in_stable_set(model: MinimalExample, theta: Theta, *, lr: float) -> np.ndarray:
    r"""Say where ``theta`` lies in the strip :math:`\{\beta_1 = 0, l_1 \alpha^2 \le 2 / \eta\}`.

    This is the stable set of the self-stabilisation theory, sharpness at most ``2 / eta`` and no
    gradient along the top eigenvector, which here is the direction of ``beta1``.

    Args:
        model: The model.
        theta: ``[..., 3]``.
        lr: Step size eta.

    Returns:
        Bool ``[...]``.
    """
    alpha, beta1 = theta[..., 0], theta[..., 1]
    return (beta1 == 0.0) & (model.l1 * alpha**2 <= 2.0 / lr)


def upward_crossings(values: np.ndarray, level: float) -> np.ndarray:
    """Indices ``t`` with ``values[t - 1] <= level < values[t]``."""
    above = values > level
    return np.flatnonzero(above[1:] & ~above[:-1]) + 1
