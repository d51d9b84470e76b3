r"""ESAM: SAM on random tensors, and on the examples whose loss rises most.

.. math::
    \epsilon_i = \frac{\rho}{\beta} \, \frac{g_i}{\|g_S\|_2 + 10^{-12}} \quad (i \in S), \qquad
    d = \nabla \frac{1}{|B^+|} \sum_{x \in B^+} l(w + \epsilon, x)

where every tensor is in S with probability beta, and :math:`B^+` is the share gamma of the batch
whose loss rises most, :math:`l(w + \epsilon, x) - l(w, x)`. Gradients of tensors that are not in S
are not formed in the first evaluation, unless closures are ``compiled``; finding :math:`B^+` takes
a forward pass. With ``beta=gamma=1`` it is SAM. With ``gamma`` below 1 the closure is an
object with a method ``losses(chosen)`` too, which gives the loss of every example chosen:
``mbrl_flat.optim.methods.esam.Examples`` shows one.

How to choose rho:
    As for SAM with the same model: the division by beta keeps the expected perturbation. A smaller
    beta makes single steps longer, so begin with beta 0.5 or more.

References:
    Du et al., "Efficient Sharpness-aware Minimization for Improved Training of Neural Networks",
    ICLR 2022, arXiv:2110.03141; beta 0.5 as in the code of arXiv:2401.12033. gamma is 1 by default,
    as in the authors' class, because most closures give a mean.

Deviations from the paper:
    If chance chooses no tensor, all are perturbed, as far. The examples kept are exactly the share
    gamma, rounded, at least one; the authors drop those that tie with the last one.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import UserError
from mbrl_flat.optim.closure_evaluator import Closure, ClosureEvaluator
from mbrl_flat.optim.registry import register
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.sharpness_aware import SharpnessAware


@runtime_checkable
class Examples(Protocol):
    """A closure that can tell examples apart; what ESAM needs to choose among them.

    The optimizer differentiates the mean of ``losses`` itself, so calling backward or scaling the
    loss is not the closure's concern there::

        class Loss:
            def __call__(self):
                optimizer.zero_grad()
                loss = self.losses().mean()
                loss.backward()
                return loss.detach()

            def losses(self, chosen=slice(None)):
                return cross_entropy(model(x[chosen]), y[chosen], reduction="none")
    """

    def __call__(self) -> Tensor:
        """What any closure does."""
        ...

    def losses(self, chosen: Tensor = ...) -> Tensor:
        """Losses of all examples ``[B]``, or of those with the indices ``chosen`` ``[b]``."""
        ...


class ExampleClosure:
    """One step's closure: all examples at the weights, those that rise most where perturbed.

    Args:
        examples: The user's closure.
        gamma: Share of the examples to keep.
        params: Whose gradients are zeroed.
        scaler: Scales what is differentiated, if given.
    """

    def __init__(
        self,
        examples: Examples,
        gamma: float,
        params: Sequence[Tensor],
        scaler: GradScaler | None,
    ) -> None:
        self._examples, self._gamma = examples, gamma
        self._params, self._scaler = params, scaler
        self._clean: Tensor | None = None
        self.perturbed = False

    def __call__(self) -> Tensor:
        """Leave the gradients of the mean over the chosen; return the mean over all."""
        for param in self._params:
            param.grad = None
        if not self.perturbed or self._clean is None:
            losses = self._examples.losses()
            self._clean = losses.detach()
            self._differentiate(losses.mean())
            return self._clean.mean()
        with torch.no_grad():
            perturbed = self._examples.losses()
        kept = max(1, round(self._gamma * perturbed.numel()))
        chosen = (perturbed - self._clean).topk(kept).indices
        self._differentiate(self._examples.losses(chosen).mean())
        return perturbed.mean()

    def _differentiate(self, loss: Tensor) -> None:
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()


@register(
    "esam",
    paper="arXiv:2110.03141",
    evaluations=2,
    memory=1,
    neutral={"rho": 0.0},
    needs="losses of single examples for gamma < 1",
)
class ESAM(SharpnessAware):
    """SAM with a new choice of tensors and examples in every step.

    Attributes:
        rho: Radius of the perturbation of the weights, at least 0.
        beta: Probability of a tensor to be perturbed.
        gamma: Share of the examples that the second gradient is taken of.
    """

    beta: float = setting(0.5, "(0, 1]")
    gamma: float = setting(1.0, "(0, 1]")

    # Without an annotation it is no setting.
    _example_closures = ()

    def _final_gradient(
        self, closure: Closure | Sequence[Closure], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        if self.gamma == 1.0:
            return super()._final_gradient(closure, scaler)
        closures = list(closure) if isinstance(closure, Sequence) else [closure]
        parts = [part for part in closures if isinstance(part, Examples)]
        if len(parts) < len(closures):
            raise UserError(
                f"esam with gamma={self.gamma} chooses among examples and needs a closure with "
                f"losses(chosen); see mbrl_flat.optim.methods.esam.Examples, or set gamma=1."
            )
        made = [ExampleClosure(part, self.gamma, self._params(), scaler) for part in parts]
        self._example_closures = tuple(made)
        try:
            return super()._final_gradient(list(made), scaler)
        finally:
            # Not kept: closures hold batches, and many cannot be pickled.
            self._example_closures = ()

    def _first(self, evaluate: ClosureEvaluator, chosen: Mapping[nn.Parameter, float]) -> Tensor:
        # Code would be compiled again for the tensors of every step.
        return evaluate() if self.compiled else super()._first(evaluate, chosen)

    def _evaluate_perturbed(self, evaluate: ClosureEvaluator) -> Tensor:
        for closure in self._example_closures:
            closure.perturbed = True
        try:
            return evaluate()
        finally:
            for closure in self._example_closures:
                closure.perturbed = False

    def _chosen(self) -> dict[nn.Parameter, float]:
        candidates = super()._chosen()
        if not candidates or self.beta == 1.0:
            return candidates
        device = self.generator.device
        draws = torch.rand(len(candidates), generator=self.generator, device=device).tolist()
        scaled = {param: radius / self.beta for param, radius in candidates.items()}
        chosen = {
            p: r for (p, r), draw in zip(scaled.items(), draws, strict=True) if draw < self.beta
        }
        return chosen or scaled
