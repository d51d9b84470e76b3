r"""VGD: gradient descent on the loss averaged over noise of fixed size in the weights.

.. math::
    d = \frac{1}{N} \sum_{i=1}^{N} \nabla L(w + \sigma z_i), \qquad
    z_i \sim N(0, I) \;\text{ or entry by entry Student-t with } \nu \text{ degrees of freedom}

This is variational inference with a posterior of fixed covariance. For gradient descent with
learning rate :math:`\eta` on a quadratic, curvature :math:`\lambda` is stable below
:math:`(2/\eta) VF(z)`, with

.. math::
    VF(z) = \eta \sqrt{z/3} \, \sinh\!\left(\tfrac{1}{3}
        \operatorname{arsinh}\!\left(\tfrac{3}{\eta} \sqrt{3/z}\right)\right) < 1,
    \qquad z = N c / \sigma^2

where c is the squared component of the gradient along that direction: more noise and fewer samples
keep the optimizer in flatter places. ``sigma=0`` is the base.

How to choose rho:
    The radius is sigma, the standard deviation of each entry. The gradient descent of the paper
    stays stable at ``threshold(...)``: choose sigma such that it lies as far below 2 / lr as
    wanted. 0.005 to 0.03 moves the sharpness of a small network visibly; with more the loss stays
    high.

References:
    Ghosh et al., "Variational Learning Finds Flatter Solutions at the Edge of Stability",
    NeurIPS 2025, arXiv:2506.12903.

Deviations from the paper:
    The paper's base is gradient descent on the whole data set; here it is the user's. ``sigma`` is
    the scale of the Student-t noise, whose variance is sigma^2 nu / (nu - 2). The defaults, sigma
    0.01 and one Gaussian sample, are ours.
"""

import math

import torch
from torch import Tensor

from mbrl_flat.optim.closure_evaluator import ClosureEvaluator, GradientMean
from mbrl_flat.optim.noise import fill_normal
from mbrl_flat.optim.perturbing_optimizer import RadiusOptimizer
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.with_base import HasBase


@register("vgd", paper="arXiv:2506.12903", evaluations=1, memory=2, neutral={"sigma": 0.0})
class VGD(HasBase, RadiusOptimizer):
    """Gradient averaged over noisy weights; ``rho`` of a group is its sigma.

    Attributes:
        sigma: Scale of the noise, or a schedule of it.
        num_samples: Gradient evaluations a step.
        dof: Degrees of freedom of Student-t noise; null for Gaussian.
    """

    sigma: Radius = 0.01
    num_samples: int = setting(1, "[1, inf)")
    dof: float | None = setting(None, "(0, inf)")

    radius_name = "sigma"
    clean_first = False
    follows_gradient = False

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        selection = self._selected(self._chosen_now(), grads=False)
        params = selection.params
        if not params:
            return evaluate()
        mean = GradientMean(self.num_samples)
        losses: list[Tensor] = []
        for _ in range(self.num_samples):
            draw = [student_t(p, self.dof, self.generator) for p in params]
            noise = self._report(params, selection.times_radius(draw, 1.0))
            del draw
            losses.append(self._evaluate_at(evaluate, params, noise))
            del noise
            mean.add(self._params())
        mean.store()
        return torch.stack(losses).mean()


def student_t(like: Tensor, dof: float | None, generator: torch.Generator) -> Tensor:
    r"""Draw Student-t noise of scale 1.

    By the polar method of Bailey, "Polar Generation of Random Variates with the t-Distribution",
    1994: :math:`\sqrt{\nu (u^{-2/\nu} - 1)} \cos 2 \pi v` with u, v uniform on the unit interval.

    Args:
        like: Shape, type and device.
        dof: Degrees of freedom; Gaussian noise for ``None``.
        generator: Source of the draws.

    Returns:
        A tensor like ``like``.
    """
    if dof is None:
        return fill_normal(torch.empty_like(like), generator)
    u = 1.0 - torch.empty_like(like).uniform_(generator=generator)
    angle = 2.0 * math.pi * torch.empty_like(like).uniform_(generator=generator)
    return (dof * torch.expm1(-2.0 / dof * u.log())).sqrt() * angle.cos()


def threshold(*, lr: float, gradient_squared: float, sigma: float, num_samples: int) -> float:
    """Curvature above which a step raises the expected loss of a quadratic.

    Args:
        lr: Learning rate of plain gradient descent.
        gradient_squared: Squared component of the gradient along the direction.
        sigma: Size of the Gaussian noise.
        num_samples: Number of samples a step.

    Returns:
        ``(2 / lr) VF(z)``, the positive root of ``x + x^3 / z = 2 / lr``: without noise ``2 / lr``,
        without a gradient 0.
    """
    if sigma == 0.0:
        return 2.0 / lr
    z = num_samples * gradient_squared / sigma**2
    if z == 0.0:
        return 0.0
    factor = lr * math.sqrt(z / 3.0) * math.sinh(math.asinh(3.0 / lr * math.sqrt(3.0 / z)) / 3.0)
    return 2.0 / lr * factor
