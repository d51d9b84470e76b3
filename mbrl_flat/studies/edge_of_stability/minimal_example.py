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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mbrl_flat.errors import DivergedError, UserError
from mbrl_flat.settings import CheckedSettings, setting

Theta = np.ndarray
"""Parameters ``[..., 3]``: alpha, beta1, beta2, float64."""


@dataclass(frozen=True, kw_only=True)
class MinimalExample(CheckedSettings):
    """The model.

    Attributes:
        l1: Variance of the large, irrelevant input.
        l2: Variance of the small, relevant input.
    """

    l1: float = setting(1.0, "(0, inf)")
    l2: float = setting(0.001, "(0, inf)")

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
        return np.stack(self._slopes(*np.moveaxis(theta, -1, 0)), -1)

    def _slopes(self, alpha: Any, beta1: Any, beta2: Any) -> tuple[Any, Any, Any]:
        """The gradient's entries; on floats, since a step on arrays takes ten times as long."""
        pull = self.l2 * (alpha * beta2 - 1.0)
        push = self.l1 * alpha * beta1
        return push * beta1 + pull * beta2, push * alpha, pull * alpha

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
            theta: The three weights, ``[..., 3]``.

        Returns:
            The sharpness of that minimum.
        """
        c = self.invariant(theta)
        alpha2 = 0.5 * (c + np.hypot(c, 2.0))
        return np.maximum(self.l1 * alpha2, self.l2 * (alpha2 + 1.0 / alpha2))

    def descend(self, start: Theta, *, lr: float, steps: int) -> np.ndarray:
        """Run gradient descent.

        Args:
            start: The three weights to begin with, ``[3]``.
            lr: Step size eta.
            steps: Number of gradient steps.

        Returns:
            The trajectory ``[steps + 1, 3]``, the start included.

        Raises:
            DivergedError: If it diverges; the error knows the step.
            UserError: If ``beta1`` starts at 0, from where nothing can oscillate.
        """
        if start[1] == 0.0:
            raise UserError("beta1 must not start at 0: it would stay there and never oscillate.")
        alpha, beta1, beta2 = map(float, start)
        path = [(alpha, beta1, beta2)]
        for step in range(steps):
            slopes = self._slopes(alpha, beta1, beta2)
            alpha, beta1, beta2 = (
                alpha - lr * slopes[0],
                beta1 - lr * slopes[1],
                beta2 - lr * slopes[2],
            )
            if not math.isfinite(alpha + beta1 + beta2):
                raise DivergedError(step + 1, f"lr={lr} is too large.")
            path.append((alpha, beta1, beta2))
        return np.array(path)

    def flow(self, start: Theta, *, time: float, steps: int) -> np.ndarray:
        """Integrate gradient flow by the classical Runge-Kutta method.

        Args:
            start: The three weights to begin with, ``[3]``.
            time: How long, in units in which gradient descent advances by ``lr`` a step.
            steps: Equal steps of the integrator.

        Returns:
            The trajectory ``[steps + 1, 3]``.
        """
        h = time / steps
        point = tuple(map(float, start))
        path = [point]
        for _ in range(steps):
            k1 = self._slopes(*point)
            k2 = self._slopes(*_moved(point, k1, -0.5 * h))
            k3 = self._slopes(*_moved(point, k2, -0.5 * h))
            k4 = self._slopes(*_moved(point, k3, -h))
            mean = [
                (a + 2.0 * (b + c) + d) / 6.0 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)
            ]
            point = _moved(point, mean, -h)
            path.append(point)
        return np.array(path)


def _moved(point: Sequence[float], slopes: Sequence[float], length: float) -> tuple[float, ...]:
    return tuple(x + length * slope for x, slope in zip(point, slopes, strict=True))


def upward_crossings(values: np.ndarray, level: float) -> np.ndarray:
    """Indices ``t`` with ``values[t - 1] <= level < values[t]``."""
    above = values > level
    return np.flatnonzero(above[1:] & ~above[:-1]) + 1
