r"""Entropy-SGD: descend on the local entropy, whose gradient a short Langevin chain estimates.

.. math::
    x &\leftarrow x - \eta' \left(\nabla L(x) - \gamma_t (w - x)
        + \varepsilon z / \sqrt{\eta' / 2}\right), \quad z \sim N(0, I), \\
    \mu &\leftarrow (1 - \alpha) \mu + \alpha x, \qquad
    d = w - \mu, \qquad \gamma_t = \min(\gamma_0 (1 + s)^t, \max(\gamma_0, 1 / \eta'))

L times from :math:`x = \mu = w`. A step costs L evaluations, so compare it with L steps of others.

How to choose gamma:
    gamma is the radius of this method, the other way round: the smaller, the farther the chain
    wanders. 1e-4 to 0.03 in the authors' code; it grows with ``scope`` during training.

References:
    Chaudhari et al., "Entropy-SGD: Biasing Gradient Descent Into Wide Valleys", ICLR 2017,
    arXiv:1611.01838; L 20, inner rate 0.1, alpha 0.25, scope 0.001 and noise 0.0001 are the
    defaults of the authors' code, gamma 0.03 the upper end of its range.

Deviations from the paper:
    The inner chain has no momentum. Weight decay is the base's alone. The outer base is the user's.
    The pull grows to ``1 / inner_lr`` and no further: the chain diverges where its rate times pull
    and curvature exceeds 2, which the published growth reaches after some thousands of steps.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.noise import fill_normal
from mbrl_flat.optim.norms import is_finite
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing_optimizer import PerturbingOptimizer
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.with_base import HasBase


@register("entropy_sgd", paper="arXiv:1611.01838", evaluations=20, memory=5)
class EntropySGD(HasBase, PerturbingOptimizer):
    """``w - mu`` as the gradient, with mu from a chain of evaluations.

    Attributes:
        inner_steps: Length L of the chain.
        inner_lr: Rate of the chain.
        gamma: Pull towards the weights at the first step.
        scope: Growth of the pull a step, up to ``1 / inner_lr``.
        noise: Size of the noise.
        average: Weight of the newest point in the mean.
    """

    inner_steps: int = setting(20, "[1, inf)")
    inner_lr: float = setting(0.1, "(0, inf)")
    gamma: float = setting(0.03, "[0, inf)")
    scope: float = setting(1e-3, "[0, inf)")
    noise: float = setting(1e-4, "[0, inf)")
    average: float = setting(0.25, "(0, 1]")

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Refuse a base that maximises: the chain descends."""
        super().__post_init__(params, *base)
        if any(group.get("maximize") for group in self.param_groups):
            raise UserError("entropy_sgd minimises; leave maximize out and negate the loss.")

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        chosen = [p for p in self._params() if p.requires_grad]
        start = [p.detach().clone() for p in chosen]
        means = [p.clone() for p in start]
        gamma = self._pull()
        losses: list[Tensor] = []
        with self.backup.restored(chosen):
            for _ in range(self.inner_steps):
                self.zero_grad(set_to_none=True)
                losses.append(evaluate())
                grads = [p.grad for p in chosen if p.grad is not None]
                if not is_finite(losses[-1], grads):
                    return losses[-1]
                for param, anchor, mean in zip(chosen, start, means, strict=True):
                    if param.grad is not None:
                        self._move(param, anchor, gamma)
                        mean.lerp_(param, self.average)
        for param, anchor, mean in zip(chosen, start, means, strict=True):
            if param.grad is not None:
                param.grad = anchor - mean
        moved = [mean - anchor for mean, anchor in zip(means, start, strict=True)]
        self._report(list(chosen), Perturbation.of(moved))
        self.last["perturbed_gap"] = losses[-1] - losses[0]
        return losses[0]

    def _pull(self) -> float:
        """The gamma of this step; the power itself would overflow in a long run."""
        most = max(self.gamma, 1.0 / self.inner_lr)
        if self.gamma == 0.0:
            return 0.0
        return math.exp(
            min(math.log(self.gamma) + self.steps * math.log1p(self.scope), math.log(most))
        )

    def _move(self, param: nn.Parameter, anchor: Tensor, gamma: float) -> None:
        random = fill_normal(torch.empty_like(param), self.generator)
        spread = self.noise / (0.5 * self.inner_lr) ** 0.5
        assert param.grad is not None
        drift = param.grad - gamma * (anchor - param) + spread * random
        param.sub_(self.inner_lr * drift)
