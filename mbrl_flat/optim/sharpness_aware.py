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
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, DriverSettings, FlatOptimizer, Params, joint_norm
from mbrl_flat.optim.evaluations import Evaluations
from mbrl_flat.optim.groups import selected

Memory = dict[str, Tensor]
"""What a method keeps for one parameter between steps; it is saved with the optimizer."""


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """The selected parameters that have a clean gradient, in a fixed order, entry by entry.

    Attributes:
        params: The parameters, at the clean point.
        grads: Their clean gradients; not to be written to.
        radii: Radius rho of each one's group at this step.
        memory: What the method keeps for each between steps.
        base_state: What the base optimizer keeps for each (Adam's moments).
        generator: Source of random directions, independent of every global stream.
        step: Number of steps made before this one.
    """

    params: list[Tensor]
    grads: list[Tensor]
    radii: list[float]
    memory: list[Memory]
    base_state: list[Mapping[str, Any]]
    generator: torch.Generator
    step: int

    def times_radius(self, tensors: list[Tensor], factor: Tensor) -> list[Tensor]:
        """``factor * rho_i * t_i`` with a scalar tensor ``factor``."""
        if len(set(self.radii)) <= 1:
            return list(torch._foreach_mul(tensors, factor * self.radii[0]))
        return [t * (factor * rho) for t, rho in zip(tensors, self.radii, strict=True)]


class Perturbation(Protocol):
    """Displacement at which the gradient is evaluated again."""

    def __call__(self, leaves: Leaves) -> list[Tensor]:
        """Return one displacement for each of the leaves, in tensors of their own."""
        ...


class Combine(Protocol):
    """Final gradient from the clean and the perturbed one."""

    needs_clean: bool
    """Whether ``clean`` is read. If not, the first evaluation forms only selected gradients."""

    def __call__(
        self, clean: list[Tensor], perturbed: list[Tensor], memory: list[Memory]
    ) -> list[Tensor]:
        """Combine the gradients of parameters that have both, entry by entry."""
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


class SharpnessAware(FlatOptimizer):
    """Base optimizer on gradients that are taken at a displaced point.

    Args:
        params: Parameters, named parameters or groups; a group's ``rho`` replaces the common one.
        base: Makes the optimizer that takes the final gradient.
        perturbation: The displacement.
        rho: Radius, at least 0.
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
        rho: float,
        combine: Combine | None = None,
        every: int = 1,
        only: Sequence[str] | None = None,
        **settings: Unpack[DriverSettings],
    ) -> None:
        if every < 1:
            raise UserError(f"every must be at least 1, got {every}.")
        self._rho = rho
        super().__init__(params, base=base, **settings)
        self.perturbation = perturbation
        self.combine: Combine = combine or TakePerturbed()
        self.every = every
        self.only = only
        self.steps = 0
        self.memory: dict[nn.Parameter, Memory] = {}
        device = self.param_groups[0]["params"][0].device
        # Its seed follows from the run's, and taking it moves no stream.
        seed = (torch.initial_seed() ^ 0x5A11) % 2**63
        self.generator = torch.Generator(device).manual_seed(seed)
        for group in self.param_groups:
            self._set_rho(group)
        selected(self.param_groups, only)

    def _set_rho(self, group: dict[str, Any]) -> None:
        rho = group.setdefault("rho", self._rho)
        if not rho >= 0.0:
            raise UserError(f"rho must be at least 0, got {rho}; rho=0 is the base optimizer.")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch; without a ``rho`` of its own it takes the common one."""
        super().add_param_group(param_group)
        self._set_rho(self.param_groups[-1])

    def _gradient(self, evaluate: Evaluations) -> Tensor:
        due = self.steps % self.every == 0
        self.steps += 1
        if not due:
            return evaluate()
        chosen = selected(self.param_groups, self.only)
        with self._gradients_only_of(chosen):
            loss = evaluate()
        leaves = self._leaves(chosen)
        if not self._can_displace(loss, leaves):
            return loss
        shifts = self.perturbation(leaves)
        clean = {p: p.grad for p in self._params() if p.grad is not None}
        # A closure that zeroes in place must not reach the clean gradients.
        self.zero_grad(set_to_none=True)
        with displaced(leaves.params, shifts):
            perturbed_loss = evaluate()
        self._combine(clean)
        self._report(leaves, shifts, perturbed_loss - loss)
        return loss

    @contextmanager
    def _gradients_only_of(self, chosen: set[nn.Parameter]) -> Iterator[None]:
        """Let the first evaluation skip gradients that nobody reads."""
        # Data-parallel reducers wait for the gradient of every parameter.
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        skipped: list[nn.Parameter] = []
        if not self.combine.needs_clean and not distributed:
            skipped = [p for p in self._params() if p.requires_grad and p not in chosen]
        for param in skipped:
            param.requires_grad_(False)
        try:
            yield
        finally:
            for param in skipped:
                param.requires_grad_(True)

    def _leaves(self, chosen: set[nn.Parameter]) -> Leaves:
        rows = [
            (p, p.grad, float(group["rho"]))
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and p in chosen
        ]
        return Leaves(
            params=[row[0] for row in rows],
            grads=[row[1] for row in rows],
            radii=[row[2] for row in rows],
            memory=[self.memory.setdefault(row[0], {}) for row in rows],
            base_state=[self.state.get(row[0], {}) for row in rows],
            generator=self.generator,
            step=self.steps - 1,
        )

    def _can_displace(self, loss: Tensor, leaves: Leaves) -> bool:
        """Keep what is not finite out of the method's memory; the driver then says what it is."""
        return bool(leaves.params) and bool(
            torch.isfinite(loss) & torch.isfinite(joint_norm(leaves.grads))
        )

    def _combine(self, clean: dict[nn.Parameter, Tensor]) -> None:
        both = [p for p in self._params_with_grad() if p in clean]
        if not self.combine.needs_clean or not both:
            return
        final = self.combine(
            [clean[p] for p in both],
            [p.grad for p in both if p.grad is not None],
            [self.memory.setdefault(p, {}) for p in both],
        )
        for param, grad in zip(both, final, strict=True):
            param.grad = grad

    def _report(self, leaves: Leaves, shifts: list[Tensor], gap: Tensor) -> None:
        norm = joint_norm(shifts)
        previous = [memory.get("shift") for memory in leaves.memory]
        if all(shift is not None for shift in previous):
            pairs = list(zip(shifts, previous, strict=True))
            dots = torch.stack([torch.linalg.vecdot(a.flatten(), b.flatten()) for a, b in pairs])  # pyright: ignore[reportOptionalMemberAccess]
            scale = norm * joint_norm([b for b in previous if b is not None])
            self.last["cosine"] = torch.where(scale > 0, dots.sum() / scale, scale)
        for memory, shift in zip(leaves.memory, shifts, strict=True):
            memory["shift"] = shift
        self.last |= {"perturbation_norm": norm, "perturbed_gap": gap}

    def _own_state(self) -> dict[str, Any]:
        return {
            **super()._own_state(),
            "steps": self.steps,
            "memory": [dict(self.memory.get(p, {})) for p in self._params()],
            "generator": self.generator.get_state(),
        }

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        super()._load_own_state(state)
        self.steps = int(state["steps"])
        self.memory = {
            param: {name: value.to(param.device, copy=True) for name, value in memory.items()}
            for param, memory in zip(self._params(), state["memory"], strict=True)
            if memory
        }
        self.generator.set_state(state["generator"].cpu())


@contextmanager
def displaced(params: list[Tensor], shifts: list[Tensor]) -> Iterator[None]:
    """Add ``shifts`` to ``params`` for the length of the body; the old values come back exactly.

    They are copied back into the same storage, also when the body raises: subtracting what was
    added would leave rounding errors behind.
    """
    saved = [p.detach().clone() for p in params]
    torch._foreach_add_(params, shifts)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(params, saved)
