"""Optimizers that evaluate the closure at perturbed weights, and their state between steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.optim.base import FlatOptimizer
from mbrl_flat.optim.closure_evaluator import Closure, ClosureEvaluator, kept
from mbrl_flat.optim.groups import is_bias, selected
from mbrl_flat.optim.noise import fill_normal
from mbrl_flat.optim.norms import joint_norm
from mbrl_flat.optim.perturbation import Perturbation, WeightBackup, cosine
from mbrl_flat.optim.schedules import check_radius, radius_at
from mbrl_flat.optim.settings import setting
from mbrl_flat.optim.synchronization import share_generator
from mbrl_flat.runtime.seeding import set_generator

MethodState = dict[str, Tensor]
"""What a method keeps for one parameter between steps; it is saved with the optimizer."""


@dataclass(frozen=True, kw_only=True)
class SelectedParams:
    """The selected parameters that have a clean gradient, in a fixed order, entry by entry.

    Attributes:
        params: The parameters, at the clean point.
        grads: Their clean gradients; not to be written to.
        radii: Radius rho of each one's group at this step.
        is_bias: Whether each is a bias, of a norm layer too.
        method_state: What the method keeps for each between steps.
        base_state: What the base optimizer keeps for each (Adam's moments).
        generator: Source of random directions, independent of every global stream.
        step: Number of steps made before this one.
    """

    params: list[Tensor]
    grads: list[Tensor]
    radii: list[float]
    is_bias: list[bool]
    method_state: list[MethodState]
    base_state: list[Mapping[str, Any]]
    generator: torch.Generator
    step: int

    @cached_property
    def grad_norm(self) -> Tensor:
        """Joint norm of the clean gradients, a scalar."""
        return joint_norm(self.grads)

    def are_finite(self, loss: Tensor) -> bool:
        """Whether the clean loss and these gradients are finite."""
        return bool(torch.isfinite(loss) & torch.isfinite(self.grad_norm))

    def times_radius(
        self, tensors: list[Tensor], factor: Tensor | float, *, norm: Tensor | None = None
    ) -> Perturbation:
        """``factor * rho_i * t_i`` with a scalar ``factor``; ``norm`` is that of the tensors."""
        scales = [float(factor) * rho for rho in self.radii]
        length = None if norm is None else float(norm)
        return Perturbation(directions=tensors, scales=scales, length=length)

    def along(self, tensors: list[Tensor]) -> Perturbation:
        """``rho_i * t_i / (|t| + 1e-12)``, the norm being that of all tensors together."""
        norm = self.grad_norm if tensors is self.grads else joint_norm(tensors)
        return self.times_radius(tensors, 1.0 / (float(norm) + 1e-12), norm=norm)


@dataclass(kw_only=True, eq=False, repr=False)
class PerturbingOptimizer(FlatOptimizer):
    """Driver for methods that evaluate at perturbed weights.

    The state resumes bit for bit on the kind of device it was saved on. On another one (a CPU
    instead of a GPU) random directions come from a new stream, which the run's seed and the number
    of steps determine, because the states of generators differ between kinds of devices.
    """

    accumulates = False

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Make the source of random directions and the space for weights."""
        super().__post_init__(params, *base)
        self.method_state: dict[nn.Parameter, MethodState] = {}
        self.backup = WeightBackup()
        self._compared: dict[Tensor, Tensor] = {}
        device = next((p.device for p in self._params()), torch.device("cpu"))
        # Its seed follows from the run's, and taking it moves no stream.
        self._seed = (torch.initial_seed() ^ 0x5A11) % 2**63
        self.generator = torch.Generator(device).manual_seed(self._seed)
        self._generator_is_common = False

    def _evaluated(
        self, closures: list[Closure], params: list[nn.Parameter], scaler: GradScaler | None
    ) -> tuple[Tensor, int]:
        if self.sync == "global" and not self._generator_is_common:
            # One perturbation takes one stream, also where processes have seeds of their own.
            share_generator(self.generator, params[0].device)
            self._generator_is_common = True
        return super()._evaluated(closures, params, scaler)

    def _evaluate_at(
        self, evaluate: ClosureEvaluator, params: list[Tensor], perturbation: Perturbation
    ) -> Tensor:
        """Evaluate at ``params + perturbation``; the gradients there are left in ``.grad``."""
        # A closure that zeroes in place must not reach gradients that were taken before.
        self.zero_grad(set_to_none=True)
        with self.backup.perturbed(params, perturbation):
            return evaluate()

    def _grads(self) -> dict[nn.Parameter, Tensor]:
        """Gradients that the last evaluation left behind."""
        return {p: kept(p.grad) for p in self._params() if p.grad is not None}

    def _noise(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Standard normal noise in the shapes of the parameters."""
        return [fill_normal(torch.empty_like(p), self.generator) for p in params]

    def _report(self, params: list[Tensor], perturbation: Perturbation) -> Perturbation:
        """Record length and direction of a perturbation; return it."""
        samples = dict(zip(params, perturbation.sample(), strict=True))
        self.last["perturbation_norm"] = perturbation.norm()
        self.last["cosine"] = cosine(samples, self._compared)
        self._compared = samples
        return perturbation

    def _own_state(self) -> dict[str, Any]:
        return {
            **super()._own_state(),
            "memory": [dict(self.method_state.get(p, {})) for p in self._params()],
            "compared": [self._compared.get(p) for p in self._params()],
            "generator": self.generator.get_state(),
            "generator_device": self.generator.device.type,
        }

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        super()._load_own_state(state)
        self.method_state = {
            param: {name: value.to(param.device, copy=True) for name, value in own.items()}
            for param, own in zip(self._params(), state["memory"], strict=True)
            if own
        }
        self._compared = {
            param: sample.to(param.device, copy=True)
            for param, sample in zip(self._params(), state["compared"], strict=True)
            if sample is not None
        }
        set_generator(
            self.generator,
            state["generator"],
            saved_on=state.get("generator_device"),
            seeds=[self._seed, self.steps],
        )


@dataclass(kw_only=True, eq=False, repr=False)
class RadiusOptimizer(PerturbingOptimizer):
    """Driver for methods with a radius, which is the setting that ``radius_name`` names.

    A group whose radius is 0 is not perturbed and does not count in any norm; if that is true of
    all, the step is a plain one of the base. A group's ``rho`` replaces the common radius. Groups
    whose base maximises are perturbed the other way, where the objective falls.

    Attributes:
        every: Perturb in every k-th step, beginning with the first; the others are plain.
        only: Which parameters are perturbed: names of modules, kinds (``norm``, ``bias``,
            ``weight``) or patterns, see ``groups.selected``; null for all.
    """

    every: int = setting(1, "[1, inf)")
    only: Sequence[str] | None = None

    radius_name = "rho"
    follows_gradient = True
    """Whether the perturbation is along a gradient, whose sense depends on ``maximize``."""

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Check radii and selection against the groups."""
        super().__post_init__(params, *base)
        for group in self.param_groups:
            check_radius(group.get("flat_rho", 0.0))
        selected(self.param_groups, self.only)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch; without a ``rho`` of its own it takes the common one."""
        if not self._adopting and isinstance(param_group, dict):
            own = "flat_rho" if "rho" in self._base_keys else "rho"
            check_radius(param_group.get(own, 0.0))
        super().add_param_group(param_group)

    def _radius(self, group: Mapping[str, Any]) -> float:
        common = getattr(self, self.radius_name)
        radius = radius_at(group.get("flat_rho", common), self.steps, group.get("lr", 0.0))
        return -radius if self.follows_gradient and group.get("maximize") else radius

    @property
    def _perturbs(self) -> bool:
        """Whether this is one of the steps that are not plain."""
        return self.steps % self.every == 0

    def _chosen_now(self) -> dict[nn.Parameter, float]:
        """Radius of every parameter that is perturbed in this step."""
        return self._chosen() if self._perturbs else {}

    def _chosen(self) -> dict[nn.Parameter, float]:
        """Radius of every parameter that steps perturb which are not plain."""
        wanted = selected(self.param_groups, self.only)
        return {
            param: radius
            for group in self.param_groups
            if (radius := self._radius(group)) != 0.0
            for param in group["params"]
            if param.requires_grad and param in wanted
        }

    def _selected(
        self, chosen: Mapping[nn.Parameter, float], *, grads: bool = True
    ) -> SelectedParams:
        """Those of the chosen that have a gradient, or all of them with ``grads=False``."""
        params = [p for p in chosen if p.grad is not None or not grads]
        biases = {
            p
            for group in self.param_groups
            for p, name in zip(group["params"], group.get("param_names", []), strict=False)
            if is_bias(name)
        }
        return SelectedParams(
            params=list(params),
            grads=[kept(p.grad) for p in params if p.grad is not None],
            radii=[chosen[p] for p in params],
            is_bias=[p in biases for p in params],
            method_state=[self.method_state.setdefault(p, {}) for p in params],
            base_state=[self.state.get(p, {}) for p in params],
            generator=self.generator,
            step=self.steps,
        )


def combine_gradients(
    gradients: Sequence[Mapping[nn.Parameter, Tensor]],
    combine: Callable[[list[list[Tensor]]], list[Tensor]],
) -> None:
    """Store the final gradient of several evaluations.

    Args:
        gradients: What each evaluation left in ``.grad``. A parameter that lacks a gradient in one
            of them gets that of the last.
        combine: Takes one list of gradients for each evaluation and may write to them; returns the
            final ones.
    """
    last = gradients[-1]
    shared = [p for p in last if all(p in grads for grads in gradients)]
    for param, grad in last.items():
        param.grad = grad
    if shared:
        final = combine([[grads[p] for p in shared] for grads in gradients])
        for param, grad in zip(shared, final, strict=True):
            param.grad = grad
