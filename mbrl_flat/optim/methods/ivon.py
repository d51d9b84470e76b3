r"""IVON: variational learning of a Gaussian over the weights at the cost of Adam.

.. math::
    \epsilon_i &= z_i / \sqrt{\lambda (h + \delta)}, \quad z_i \sim N(0, I), \qquad
    \hat g = \overline{\nabla L(m + \epsilon_i)}, \quad
    \hat f = \lambda (h + \delta) \, \overline{\epsilon_i \nabla L(m + \epsilon_i)}, \\
    \bar g &\leftarrow \beta_1 \bar g + (1 - \beta_1) \hat g, \\
    h' &= \beta_2 h + (1 - \beta_2) \hat f
        + \tfrac{1}{2} (1 - \beta_2)^2 \frac{(h - \hat f)^2}{h + \delta}, \\
    m &\leftarrow m - \alpha \operatorname{clip}\!\left(
        \frac{\bar g / (1 - \beta_1^t) + \delta m}{h' + \delta}, -\xi, \xi\right), \qquad
    \alpha = \eta (h_0 + \delta)

entry by entry, bars being means over samples, lambda the effective sample size and delta the weight
decay. The weights are the mean m between steps. ``with optimizer.sampled_params():`` holds a draw
from the posterior; average the predictions of several. In settings: eta is ``lr``, lambda ``ess``,
h_0 ``hess_init``, beta_1 and beta_2 ``betas``, delta ``weight_decay``, xi ``clip_radius``, and the
means are over ``num_samples``.

How to choose the effective sample size:
    The number of training examples, or more for a narrower posterior; the width of the noise at the
    start is 1 / sqrt(ess (hess_init + weight_decay)): keep it well below typical weights. Rates are
    those of gradient descent, 0.1 to 0.2 for images in the authors' recipes; hess_init 0.05 to 1.

References:
    Shen et al., "Variational Learning is Effective for Large Deep Networks", ICML 2024,
    arXiv:2402.17641; h_0 1, beta_1 0.9, beta_2 0.99999, weight decay 1e-4 and one sample are the
    defaults of the authors' code, lr 0.1 and an effective sample size of 5e4 lie in the range of
    its recipes for images.

Deviations from the paper:
    None in the equations; written from them. Frozen parameters are neither noisy nor moved; those
    that the loss gives no gradient are noisy while it is evaluated, but not moved. The step count
    is saved.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.models import kernels
from mbrl_flat.optim.chunks import chunks
from mbrl_flat.optim.closure_evaluator import Closure, ClosureEvaluator, GradientMean
from mbrl_flat.optim.parameters import ParamGroup
from mbrl_flat.optim.perturbation import Perturbation, WeightBackup
from mbrl_flat.optim.perturbing_optimizer import PerturbingOptimizer
from mbrl_flat.optim.posterior import Posterior
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting


class IVONUpdate(Posterior):
    """The last three equations; ``statistic`` holds the mean of noise times gradient."""

    count_key = "ess"
    damping_key = "weight_decay"
    start_key = "hess_init"
    curvature_key = "hessian"

    def _move(self, param: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state = self._state(param, group)
        (beta1, beta2), delta, radius = group["betas"], group["weight_decay"], group["clip_radius"]
        state["step"] += 1
        debias = 1.0 / (1.0 - beta1 ** float(state["step"]))
        rate = group["lr"] * (group["hess_init"] + delta)
        tensors = (param, grad, state["momentum"], state["hessian"], self.statistic[param])
        if kernels.usable(*tensors) and all(tensor.is_contiguous() for tensor in tensors):
            kernels.call(
                *("posterior_move", *tensors, param.numel(), 1.0 - beta1, 1.0 - beta2, delta),
                *(group["ess"], rate * debias, delta / debias, radius / debias),
            )
            return
        for mean, gradient, momentum, hessian, product in chunks(*tensors):
            momentum.lerp_(gradient, 1.0 - beta1)
            # With the precision p = h + delta and c = (h - f) / p the new h is
            # h - (1 - b) p (c - (1 - b) c^2 / 2).
            precision = hessian + delta
            change = (hessian / precision).sub_(product, alpha=group["ess"])
            change.addcmul_(change, change, value=-0.5 * (1.0 - beta2))
            hessian.addcmul_(precision, change, value=beta2 - 1.0)
            torch.add(hessian, delta, out=precision)
            direction = torch.add(momentum, mean, alpha=delta / debias, out=change)
            if math.isinf(radius):
                mean.addcdiv_(direction, precision, value=-rate * debias)
            else:
                direction.div_(precision).clamp_(-radius / debias, radius / debias)
                mean.sub_(direction, alpha=rate * debias)


@register("ivon", paper="arXiv:2402.17641", evaluations=1, memory=2)
class IVON(PerturbingOptimizer):
    """Samples weights, evaluates, and leaves means for the update.

    Attributes:
        lr: Rate eta, in units of gradient descent at the start.
        ess: Effective sample size lambda: about the number of training examples.
        hess_init: Curvature h_0 assumed at the start.
        betas: Decay of gradient and curvature.
        weight_decay: Prior precision delta, over ess.
        clip_radius: Bound xi on every entry of the step.
        num_samples: Gradient evaluations a step.
    """

    lr: float = setting(0.1, "[0, inf)")
    ess: float = setting(5e4, "(0, inf)")
    hess_init: float = setting(1.0, "(0, inf)")
    betas: tuple[float, float] = setting((0.9, 0.99999), "[0, 1)")
    weight_decay: float = setting(1e-4, "[0, inf)")
    clip_radius: float = setting(math.inf, "(0, inf]")
    num_samples: int = setting(1, "[1, inf)")

    clean_first = False
    refuses_local = "ivon averages over processes with sync=global, not sync=local."

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Make the stream that predictions draw from."""
        super().__post_init__(params, *base)
        self._samples = 0
        self._space: dict[nn.Parameter, Tensor] = {}
        # Predictions draw from a stream of their own: looking at them must not change training.
        self._draws = torch.Generator(self.generator.device).manual_seed(self._seed ^ 1)

    def _make_base(self, groups: list[ParamGroup], *base: Any) -> torch.optim.Optimizer:
        del base
        settings = self.own_settings()
        del settings["num_samples"]
        return IVONUpdate(groups, {**settings, "betas": tuple(self.betas)})

    def _final_gradient(
        self, closure: Closure | Sequence[Closure], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        # Products of the step before are space for the noise of this one.
        self._space |= self.base.statistic
        self.base.statistic, self._samples = {}, 0
        loss, count = super()._final_gradient(closure, scaler)
        if self._samples > 1:
            for product in self.base.statistic.values():
                product.div_(self._samples)
        return loss, count

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        mean, products = GradientMean(self.num_samples), self.base.statistic
        losses: list[Tensor] = []
        for _ in range(self.num_samples):
            noise = self._sample(self.generator)
            self._samples += 1
            perturbation = self._report(list(noise), Perturbation.of(list(noise.values())))
            losses.append(self._evaluate_at(evaluate, list(noise), perturbation))
            for param, shift in noise.items():
                if param.grad is not None and param in products:
                    products[param].addcmul_(shift, param.grad)
                elif param.grad is not None:
                    products[param] = self._space.pop(param).mul_(param.grad)
            mean.add(self._params())
        mean.store()
        return torch.stack(losses).mean()

    def _sample(self, generator: torch.Generator) -> dict[nn.Parameter, Tensor]:
        """Noise of the posterior for every parameter that is trained."""
        noise: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            for param in group["params"]:
                if not param.requires_grad:
                    continue
                if param not in self._space:
                    self._space[param] = torch.empty_like(param).detach()
                noise[param] = self.base.sample_(self._space[param], param, group, generator)
        return noise

    @contextmanager
    def sampled_params(self) -> Iterator[None]:
        """Hold a draw from the posterior; average the predictions made under several.

        Draws have a stream of their own, which begins when the optimizer is made.
        """
        noise = self._sample(self._draws)
        with WeightBackup().perturbed(list(noise), Perturbation.of(list(noise.values()))):
            yield
