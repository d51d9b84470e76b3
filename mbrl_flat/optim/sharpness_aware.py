r"""Gradients taken at a perturbed point: the common form of SAM and its descendants.

    g  = grad L(w)                      clean gradient
    e  = perturbation(g)                perturbation of the selected parameters
    g' = grad L(w + e)                  perturbed gradient of all parameters
    d  = combine(g, g')                 what the base optimizer is given, at w

A method chooses the perturbation, the combination, or both.

References:
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization",
    ICLR 2021, arXiv:2010.01412.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Unpack

from torch import Tensor, nn

from mbrl_flat.optim.base import BaseFactory, Params, StepOptions
from mbrl_flat.optim.closure_evaluator import ClosureEvaluator
from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.perturbation import Perturbation
from mbrl_flat.optim.perturbing import Memory, PerturbingOptimizer, SelectedParams
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.synchronization import is_distributed

__all__ = ["Combine", "Memory", "Perturbation", "SelectedParams", "SharpnessAware"]


class PerturbationRule(Protocol):
    """Perturbation at which the gradient is evaluated again."""

    def __call__(self, selection: SelectedParams) -> Perturbation:
        """Return one perturbation for each of the selection; their gradients stay as they are."""
        ...


class Combine(Protocol):
    """Final gradient from the clean and the perturbed one."""

    needs_clean: bool
    """Whether ``clean`` is read. If not, the first evaluation forms only selected gradients.

    A closure that cannot be evaluated so, such as one that also differentiates a loss of other
    parameters alone, is evaluated once more with all gradients, and only so from then on.
    """

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Combine the gradients of parameters that have both, entry by entry.

        Args:
            clean: Not to be written to.
            perturbed: May be written to and returned.
            memory: What the method keeps for each parameter between steps.

        Returns:
            The final gradients.
        """
        ...


class TakePerturbed:
    """The perturbed gradient as it is (SAM)."""

    needs_clean = False

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Return ``perturbed``."""
        del clean, memory
        return perturbed


class SharpnessAware(PerturbingOptimizer):
    """Base optimizer on gradients that are taken at a perturbed point.

    Args:
        params: Parameters, named parameters or groups; a group's ``rho`` replaces the common one.
        base: Makes the optimizer that takes the final gradient.
        perturbation: The perturbation.
        rho: Radius, at least 0, or a schedule of it.
        combine: The final gradient.
        every: Perturb in every k-th step, beginning with the first; the others are plain.
        only: Which parameters are perturbed (see ``groups.selected``); all have their gradient
            taken at the perturbed point.
        settings: See ``StepOptions``.
    """

    def __init__(
        self,
        params: Params,
        *,
        base: BaseFactory,
        perturbation: PerturbationRule,
        rho: Radius,
        combine: Combine | None = None,
        every: int = 1,
        only: Sequence[str] | None = None,
        **settings: Unpack[StepOptions],
    ) -> None:
        super().__init__(params, base=base, rho=rho, every=every, only=only, **settings)
        self.perturbation = perturbation
        self.combine: Combine = combine or TakePerturbed()
        self._restricts = True

    def _gradient(self, evaluate: ClosureEvaluator) -> Tensor:
        chosen = self._chosen_now()
        if not chosen:
            return evaluate()
        loss = self._first(evaluate, chosen)
        selection = self._selected(chosen)
        if not selection.params:
            # The loss does not depend on what was selected: nothing to perturb.
            return loss
        if not selection.are_finite(loss):
            # Kept out of the method's memory; the driver says what is not finite.
            return loss
        clean = self._grads() if self.combine.needs_clean else {}
        with self.backup.perturbed(selection.params, self._perturbation(selection)):
            # The only other hold on the clean gradients; their space is that of the next ones.
            del selection
            self.zero_grad(set_to_none=True)
            perturbed_loss = evaluate()
        self._combine(clean)
        self.last["perturbed_gap"] = perturbed_loss - loss
        return loss

    def _perturbation(self, selection: SelectedParams) -> Perturbation:
        return self._report(selection.params, self.perturbation(selection))

    def _first(self, evaluate: ClosureEvaluator, chosen: Mapping[nn.Parameter, float]) -> Tensor:
        """Evaluate at the weights; skip gradients that nobody reads if the closure allows it."""
        # Data-parallel reducers wait for the gradient of every parameter.
        if self.combine.needs_clean or not self._restricts or is_distributed():
            return evaluate()
        skipped = [p for p in self._params() if p.requires_grad and p not in chosen]
        if not skipped:
            return evaluate()
        with _without_gradient(skipped):
            loss = evaluate.try_restricted(list(chosen))
        if loss is None:
            # Once is enough: what is undone costs as much as what is skipped may save.
            self._restricts = False
            return evaluate()
        return loss

    def _combine(self, clean: dict[nn.Parameter, Tensor]) -> None:
        both = [p for p in self._params_with_grad() if p in clean]
        if not self.combine.needs_clean or not both:
            return
        perturbed = [p.grad for p in both if p.grad is not None]
        if not bool(joint_norm(perturbed).isfinite()):
            return
        memory = [self.memory.setdefault(p, {}) for p in both]
        final = self.combine([clean[p] for p in both], perturbed, memory)
        for param, grad in zip(both, final, strict=True):
            param.grad = grad

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "restricts": self._restricts}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        super()._load_own_state(state)
        self._restricts = bool(state.get("restricts", True))


@contextmanager
def _without_gradient(params: Sequence[nn.Parameter]) -> Iterator[None]:
    for param in params:
        param.requires_grad_(False)
    try:
        yield
    finally:
        for param in params:
            param.requires_grad_(True)
