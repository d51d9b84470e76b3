"""Averages of the weights around any optimizer, to act and evaluate with."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, Unpack

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import BaseFactory, FlatOptimizer, StepOptions
from mbrl_flat.optim.closure_evaluator import Closure
from mbrl_flat.optim.parameters import ParamGroup, Params


class Weight(Protocol):
    """How much the newest weights count in the average."""

    def __call__(self, step: int) -> float:
        """Weight in [0, 1] after the given number of steps; 1 starts the average anew."""
        ...


class Averaging(FlatOptimizer):
    """Another optimizer, and an average of the weights it passes through.

    The average takes no part in learning. ``evaluation_params`` puts it in place, in the same
    storage. Running statistics of BatchNorm are those of the weights that were trained.

    Args:
        params: Parameters, named parameters or groups.
        base: Makes the optimizer that learns: one of torch or one of the registry.
        weight: How much the newest weights count.
        settings: See ``StepOptions``; they hold for the optimizer that learns, whose own stay
            where none are given here.
    """

    def __init__(
        self,
        params: Params,
        *,
        base: BaseFactory,
        weight: Weight,
        **settings: Unpack[StepOptions],
    ) -> None:
        def make_inner(groups: list[ParamGroup]) -> torch.optim.Optimizer:
            made = base(groups)
            if isinstance(made, FlatOptimizer):
                return made
            return FlatOptimizer(groups, base=lambda _: made)

        super().__init__(params, base=make_inner, **settings)
        assert isinstance(self.base, FlatOptimizer)
        self.inner = self.base
        self.configure(settings)
        for name in StepOptions.__annotations__:
            setattr(self, name, getattr(self.inner, name))
        self._hold(self._statistics)
        self.weight = weight
        self.averages: dict[nn.Parameter, Tensor] = {}
        self._trained: dict[nn.Parameter, Tensor] = {}

    def configure(self, settings: StepOptions) -> None:
        """Change settings of the inner optimizer; those that are left out stay as they are."""
        self.inner.configure(settings)
        super().configure(settings)

    def _hold(self, statistics: list[Tensor]) -> None:
        super()._hold(statistics)
        self.inner._hold(statistics)

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        closure: Closure | Sequence[Closure] | None = None,
        *,
        scaler: GradScaler | None = None,
    ) -> Tensor:
        """One step of the inner optimizer, then one of the average.

        Args:
            closure: See ``FlatOptimizer.step``.
            scaler: See ``FlatOptimizer.step``.

        Returns:
            What the inner optimizer returns.

        Raises:
            UserError: If the averages are in place.
        """
        if self._trained:
            raise UserError("Leave evaluation_params before the next optimizer step.")
        skipped = self.inner.skipped
        try:
            loss = self.inner.step(closure, scaler=scaler)
        finally:
            made = self.inner.skipped == skipped
            # Added and not copied: ``mbrl_flat.agents.nonfinite_guard`` counts steps here too.
            self.skipped += self.inner.skipped - skipped
            self.last = {**self.inner.last, "skipped": float(self.skipped)}
        if made:
            self._average()
            self.steps += 1
        return loss

    def _average(self) -> None:
        weight = self.weight(self.steps)
        for param in self._params():
            if param not in self.averages:
                self.averages[param] = param.detach().clone()
        if weight == 1.0:
            torch._foreach_copy_(list(self.averages.values()), list(self.averages))
        elif weight > 0.0:
            torch._foreach_lerp_(list(self.averages.values()), list(self.averages), weight)

    @contextmanager
    def evaluation_params(self) -> Iterator[None]:
        """Hold the averages; within another such context, do nothing."""
        if self._trained or not self.averages:
            yield
            return
        params: list[Tensor] = list(self.averages)
        self._trained = {p: p.detach().clone() for p in self.averages}
        with torch.no_grad():
            torch._foreach_copy_(params, list(self.averages.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(params, list(self._trained.values()))
            self._trained = {}

    def _own_state(self) -> dict[str, Any]:
        averages = [self.averages.get(p) for p in self._params()]
        return {**super()._own_state(), "averages": averages}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        super()._load_own_state(state)
        self.averages = {
            param: average.to(param.device, copy=True)
            for param, average in zip(self._params(), state["averages"], strict=True)
            if average is not None
        }


def evaluation_params(optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
    """Hold the weights to act, evaluate and measure with: for most methods those there are."""
    ours = isinstance(optimizer, FlatOptimizer)
    return optimizer.evaluation_params() if ours else nullcontext()
