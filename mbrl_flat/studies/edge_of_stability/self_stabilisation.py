r"""Self-stabilisation in two variables, with weight decay.

With ``x`` the distance along the top eigenvector and ``y = S - 2 / eta`` the excess of the
sharpness, a step of gradient descent with weight decay ``lam`` is

.. math::
    x_{t+1} &= -(1 + \eta (y_t + \lambda)) x_t, \\
    y_{t+1} &= y_t + \eta (a - \lambda \kappa - \tfrac{b}{2} x_t^2)

where :math:`a = -\nabla L \cdot \nabla S` drives progressive sharpening, :math:`\kappa = \theta
\cdot \nabla S` is what weight decay takes from it and :math:`b = |\nabla S_\perp|^2`. While ``a >
lam kappa`` the sharpness hovers at ``2 / eta`` with oscillations of amplitude ``sqrt(2 (a - lam
kappa) / b)``; otherwise it settles below.

References:
    Damian, Nichani, Lee, "Self-Stabilization: The Implicit Bias of Gradient Descent at the Edge of
    Stability", ICLR 2023, Section 3: the case ``lam = 0``.

Deviations from the paper:
    The terms of weight decay are derived here, to read the experiments of Saether et al., "Does
    Weight Decay Enhance Training Stability?", arXiv:2605.16622, with; they are not that paper's.
"""

from dataclasses import dataclass

import numpy as np

from mbrl_flat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SelfStabilisation:
    """Constants of the two-variable model.

    Attributes:
        lr: Step size eta.
        sharpening: ``a``, the rate at which the loss alone raises the sharpness.
        curvature: ``b``, squared norm of the sharpness gradient.
        weight_decay: ``lam``.
        kappa: Alignment of the weights with the sharpness gradient.
    """

    lr: float
    sharpening: float
    curvature: float
    weight_decay: float = 0.0
    kappa: float = 0.0

    def __post_init__(self) -> None:
        if not (self.lr > 0.0 and self.curvature > 0.0):
            raise UserError(
                f"lr and curvature must be positive, got {self.lr} and {self.curvature}."
            )

    @property
    def net_sharpening(self) -> float:
        """``a - lam kappa``: what is left of progressive sharpening."""
        return self.sharpening - self.weight_decay * self.kappa

    @property
    def amplitude(self) -> float:
        """Size of ``x`` at the fixed point; 0 where the sharpness stays below the edge."""
        return float(np.sqrt(max(2.0 * self.net_sharpening / self.curvature, 0.0)))

    @property
    def critical_weight_decay(self) -> float:
        """``a / kappa``: from here on the sharpness no longer reaches the edge."""
        return self.sharpening / self.kappa if self.kappa > 0.0 else float("inf")

    def run(self, *, offset: float, excess: float, steps: int) -> np.ndarray:
        """Iterate the model.

        Args:
            offset: ``x`` at the start.
            excess: ``y`` at the start.
            steps: How many.

        Returns:
            ``[steps + 1, 2]``: x and y, the start included.
        """
        path = np.empty((steps + 1, 2))
        path[0] = offset, excess
        for step in range(steps):
            x, y = path[step]
            growth = self.net_sharpening - 0.5 * self.curvature * x * x
            path[step + 1] = (
                -(1.0 + self.lr * (y + self.weight_decay)) * x,
                y + self.lr * growth,
            )
        return path
