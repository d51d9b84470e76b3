r"""Gradients taken at a displaced point: the common form of SAM and its descendants.

    g  = grad L(w)                      clean gradient
    e  = perturbation(g)                displacement of the selected parameters
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

from mbrl_flat.optim.base import BaseFactory, DriverSettings, Params
from mbrl_flat.optim.displacing import Displacing, Leaves, Memory
from mbrl_flat.optim.evaluations import Evaluations
from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.schedules import Radius
from mbrl_flat.optim.shifts import Shifts
from mbrl_flat.optim.synchronization import is_distributed

__all__ = ["Combine", "Leaves", "Memory", "Perturbation", "SharpnessAware", "Shifts"]


class Perturbation(Protocol):
    """Displacement at which the gradient is evaluated again."""

    def __call__(self, leaves: Leaves) -> Shifts:
        """Return one displacement for each of the leaves; their gradients stay as they are."""
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


class SharpnessAware(Displacing):
    """Base optimizer on gradients that are taken at a displaced point.

    Args:
        params: Parameters, named parameters or groups; a group's ``rho`` replaces the common one.
        base: Makes the optimizer that takes the final gradient.
        perturbation: The displacement.
        rho: Radius, at least 0, or a schedule of it.
        combine: The final gradient.
        every: Displace in every k-th step, beginning with the first; the others are plain.
        only: Which parameters are displaced (see ``groups.selected``); all have their gradient
            taken at the displaced point.
        settings: See ``DriverSettings``.
    """

    def __init__(
        self,
        params: Params,
        *,
        base: BaseFactory,
        perturbation: Perturbation,
        rho: Radius,
        combine: Combine | None = None,
        every: int = 1,
        only: Sequence[str] | None = None,
        **settings: Unpack[DriverSettings],
    ) -> None:
        super().__init__(params, base=base, rho=rho, every=every, only=only, **settings)
        self.perturbation = perturbation
        self.combine: Combine = combine or TakePerturbed()
        self._restricts = True

    def _gradient(self, evaluate: Evaluations) -> Tensor:
        chosen = self._chosen_now()
        if not chosen:
            return evaluate()
        loss = self._first(evaluate, chosen)
        leaves = self._leaves(chosen)
        if not leaves.params:
            # The loss does not depend on what was selected: nothing to displace.
            return loss
        if not leaves.are_finite(loss):
            # Kept out of the method's memory; the driver says what is not finite.
            return loss
        clean = self._grads() if self.combine.needs_clean else {}
        with self.room.displaced(leaves.params, self._shifts(leaves)):
            # The only other hold on the clean gradients; their space is that of the next ones.
            del leaves
            self.zero_grad(set_to_none=True)
            perturbed_loss = evaluate()
        self._combine(clean)
        self.last["perturbed_gap"] = perturbed_loss - loss
        return loss

    def _shifts(self, leaves: Leaves) -> Shifts:
        return self._report(leaves.params, self.perturbation(leaves))

    def _first(self, evaluate: Evaluations, chosen: Mapping[nn.Parameter, float]) -> Tensor:
        """Evaluate at the weights; skip gradients that nobody reads if the closure allows it."""
        # Data-parallel reducers wait for the gradient of every parameter.
        if self.combine.needs_clean or not self._restricts or is_distributed():
            return evaluate()
        skipped = [p for p in self._params() if p.requires_grad and p not in chosen]
        if not skipped:
            return evaluate()
        with _without_gradient(skipped):
            loss = evaluate.attempt(list(chosen))
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
