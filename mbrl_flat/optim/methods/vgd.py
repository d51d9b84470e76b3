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
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, FlatOptimizer, Params, StepOptions
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator, GradientMean
from mbrl_flat.optim.perturbing import PerturbingOptimizer, SelectedParams
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.schedules import Radius, check_radius


class VGD(PerturbingOptimizer):
    """Gradient averaged over noisy weights; ``rho`` of a group is its sigma."""

    clean_first = False

    num_samples: int = 1
    dof: float | None = None

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        selection = self._selected(self._chosen_now(), grads=False)
        if not selection.params:
            return evaluate()
        mean = GradientMean(self.num_samples)
        losses: list[Tensor] = []
        for _ in range(self.num_samples):
            noise = self._report(
                selection.params, selection.times_radius(self._noise(selection), 1.0)
            )
            losses.append(self._evaluate_at(evaluate, selection.params, noise))
            mean.add(self._params())
        mean.store()
        return torch.stack(losses).mean()

    def _noise(self, selection: SelectedParams) -> list[Tensor]:
        return [student_t(p, self.dof, selection.generator) for p in selection.params]


def student_t(like: Tensor, dof: float | None, generator: torch.Generator) -> Tensor:
    """Student-t noise of scale 1 in the shape of ``like``; Gaussian for ``dof=None``."""
    noise = torch.empty_like(like).normal_(generator=generator)
    if dof is None:
        return noise
    chi2 = 2.0 * torch._standard_gamma(torch.full_like(like, dof / 2.0), generator=generator)
    return noise * (dof / chi2).sqrt()


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


@register(
    "vgd",
    paper="arXiv:2506.12903",
    evaluations=1,
    memory=2,
    clean_first=False,
    neutral={"sigma": 0.0},
)
def vgd(
    params: Params,
    *,
    base: BaseFactory,
    sigma: Radius = 0.01,
    num_samples: int = 1,
    dof: float | None = None,
    every: int = 1,
    only: Sequence[str] | None = None,
    **settings: Unpack[StepOptions],
) -> FlatOptimizer:
    """Average the gradient over weight noise; see the module for the equations.

    Args:
        params: Parameters, named parameters or groups; a group's ``rho`` replaces sigma.
        base: Makes the optimizer that takes the mean gradient.
        sigma: Scale of the noise, or a schedule of it.
        num_samples: Gradient evaluations a step.
        dof: Degrees of freedom of Student-t noise; null for Gaussian.
        every: Add noise in every k-th step; the others are plain.
        only: Which parameters are noisy.
        settings: See ``StepOptions``.

    Returns:
        The optimizer.

    Raises:
        UserError: If a setting is out of its range.
    """
    check_radius(sigma, name="sigma")
    if num_samples < 1:
        raise UserError(f"num_samples must be at least 1, got {num_samples}.")
    if dof is not None and not dof > 0.0:
        raise UserError(f"dof must be positive or null, got {dof}.")
    optimizer = VGD(params, base=base, rho=sigma, every=every, only=only, **settings)
    optimizer.num_samples = num_samples
    optimizer.dof = dof
    return optimizer
