"""Evaluations away from the weights, and what methods that make them keep between steps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from mbrl_flat.optim.base import BaseFactory, DriverSettings, FlatOptimizer, Params, joint_norm
from mbrl_flat.optim.evaluations import Evaluations
from mbrl_flat.optim.groups import selected
from mbrl_flat.optim.schedules import Radius, check_radius, radius_at

Memory = dict[str, Tensor]
"""What a method keeps for one parameter between steps; it is saved with the optimizer."""


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """The selected parameters that have a clean gradient, in a fixed order, entry by entry.

    Attributes:
        params: The parameters, at the clean point.
        grads: Their clean gradients; not to be written to.
        radii: Radius rho of each one's group at this step.
        is_bias: Whether each is a bias, of a norm layer too.
        memory: What the method keeps for each between steps.
        base_state: What the base optimizer keeps for each (Adam's moments).
        generator: Source of random directions, independent of every global stream.
        step: Number of steps made before this one.
    """

    params: list[Tensor]
    grads: list[Tensor]
    radii: list[float]
    is_bias: list[bool]
    memory: list[Memory]
    base_state: list[Mapping[str, Any]]
    generator: torch.Generator
    step: int

    def times_radius(self, tensors: list[Tensor], factor: Tensor | float) -> list[Tensor]:
        """``factor * rho_i * t_i`` with a scalar ``factor``."""
        if len(set(self.radii)) <= 1:
            return list(torch._foreach_mul(tensors, factor * self.radii[0]))
        return [t * (factor * rho) for t, rho in zip(tensors, self.radii, strict=True)]


class Displacing(FlatOptimizer):
    """Driver for methods that evaluate at displaced weights.

    A group whose radius is 0 is not displaced and does not count in any norm; if that is true of
    all, the step is a plain one of the base.

    Args:
        params: Parameters, named parameters or groups; a group's ``rho`` replaces the common one.
        base: Makes the optimizer that takes the final gradient.
        rho: Radius, at least 0, or a schedule of it.
        only: Which parameters are displaced (see ``groups.selected``).
        settings: See ``DriverSettings``.
    """

    def __init__(
        self,
        params: Params,
        *,
        base: BaseFactory,
        rho: Radius,
        only: Sequence[str] | None = None,
        **settings: Unpack[DriverSettings],
    ) -> None:
        super().__init__(params, base=base, **settings)
        self.rho = rho
        self.only = only
        self.memory: dict[nn.Parameter, Memory] = {}
        device = self.param_groups[0]["params"][0].device
        # Its seed follows from the run's, and taking it moves no stream.
        seed = (torch.initial_seed() ^ 0x5A11) % 2**63
        self.generator = torch.Generator(device).manual_seed(seed)
        check_radius(rho)
        for group in self.param_groups:
            check_radius(group.get("rho", 0.0))
        selected(self.param_groups, only)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch; without a ``rho`` of its own it takes the common one."""
        check_radius(param_group.get("rho", 0.0))
        super().add_param_group(param_group)

    def _radius(self, group: Mapping[str, Any]) -> float:
        return radius_at(group.get("rho", self.rho), self.steps, group["lr"])

    def _chosen(self) -> dict[nn.Parameter, float]:
        """Radius of every parameter that is displaced in this step."""
        wanted = selected(self.param_groups, self.only)
        return {
            param: radius
            for group in self.param_groups
            if (radius := self._radius(group)) > 0.0
            for param in group["params"]
            if param.requires_grad and param in wanted
        }

    def _leaves(self, chosen: Mapping[nn.Parameter, float], *, grads: bool = True) -> Leaves:
        """Those of the chosen that have a gradient, or all of them with ``grads=False``."""
        params = [p for p in chosen if p.grad is not None or not grads]
        biases = {
            p
            for group in self.param_groups
            for p, name in zip(group["params"], group.get("param_names", []), strict=False)
            if name.rpartition(".")[2] == "bias"
        }
        return Leaves(
            params=list(params),
            grads=[p.grad for p in params if p.grad is not None],
            radii=[chosen[p] for p in params],
            is_bias=[p in biases for p in params],
            memory=[self.memory.setdefault(p, {}) for p in params],
            base_state=[self.state.get(p, {}) for p in params],
            generator=self.generator,
            step=self.steps,
        )

    def _evaluate_at(
        self, evaluate: Evaluations, params: list[Tensor], shifts: list[Tensor]
    ) -> Tensor:
        """Evaluate at ``params + shifts``; the gradients there are left in ``.grad``."""
        # A closure that zeroes in place must not reach gradients that were taken before.
        self.zero_grad(set_to_none=True)
        with displaced(params, shifts):
            return evaluate()

    def _grads(self) -> dict[nn.Parameter, Tensor]:
        """Gradients that the last evaluation left behind."""
        return {p: p.grad for p in self._params() if p.grad is not None}

    def _report(self, leaves: Leaves, shifts: list[Tensor], gap: Tensor | float) -> None:
        norm = joint_norm(shifts)
        previous = [memory.get("shift") for memory in leaves.memory]
        if all(shift is not None for shift in previous):
            before = [shift for shift in previous if shift is not None]
            scale = norm * joint_norm(before)
            self.last["cosine"] = torch.where(scale > 0, inner(shifts, before) / scale, scale)
        for memory, shift in zip(leaves.memory, shifts, strict=True):
            memory["shift"] = shift
        self.last |= {"perturbation_norm": norm, "perturbed_gap": gap}

    def _own_state(self) -> dict[str, Any]:
        return {
            **super()._own_state(),
            "memory": [dict(self.memory.get(p, {})) for p in self._params()],
            "generator": self.generator.get_state(),
        }

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        super()._load_own_state(state)
        self.memory = {
            param: {name: value.to(param.device, copy=True) for name, value in memory.items()}
            for param, memory in zip(self._params(), state["memory"], strict=True)
            if memory
        }
        self.generator.set_state(state["generator"].cpu())


def combined(
    passes: Sequence[Mapping[nn.Parameter, Tensor]],
    combine: Callable[[list[list[Tensor]]], list[Tensor]],
) -> None:
    """Store the final gradient of several evaluations.

    Args:
        passes: What each evaluation left behind. A parameter that lacks a gradient in one of them
            gets that of the last.
        combine: Takes one list of gradients for each pass, returns the final ones.
    """
    last = passes[-1]
    shared = [p for p in last if all(p in grads for grads in passes)]
    for param, grad in last.items():
        param.grad = grad
    if shared:
        final = combine([[grads[p] for p in shared] for grads in passes])
        for param, grad in zip(shared, final, strict=True):
            param.grad = grad


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner product over all entries of all tensors, a scalar."""
    pairs = zip(a, b, strict=True)
    return torch.stack([torch.linalg.vecdot(x.flatten(), y.flatten()) for x, y in pairs]).sum()


def is_finite(loss: Tensor, grads: Sequence[Tensor]) -> bool:
    """Whether a loss and all gradients that came with it are finite."""
    return bool(torch.isfinite(loss) & torch.isfinite(joint_norm(list(grads))))


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
