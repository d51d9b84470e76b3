"""Averages of the weights around any optimizer, to act and evaluate with."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mbrl_flat.errors import UserError
from mbrl_flat.optim.base import FlatOptimizer
from mbrl_flat.optim.closure_evaluator import Closure, check_call
from mbrl_flat.optim.parameters import ParamGroup
from mbrl_flat.optim.step_options import OPTION_NAMES, StepOptions
from mbrl_flat.optim.with_base import HasBase, PlainOptimizer


@dataclass(kw_only=True, eq=False, repr=False)
class Averaging(HasBase):
    """Another optimizer, and an average of the weights it passes through.

    The average takes no part in learning. ``evaluation_params`` puts it in place, in the same
    storage. Running statistics of BatchNorm are those of the weights that were trained.

    Step options hold for the inner optimizer, whose own stay where none are given here.
    """

    def __post_init__(self, params: Any, *base: Any) -> None:
        """Make the inner optimizer and hand it the step options."""
        given = {
            item.name: getattr(self, item.name)
            for item in fields(StepOptions)
            if getattr(self, item.name) != item.default
        }
        super().__post_init__(params, *base)
        self.inner: FlatOptimizer = self.base_optimizer
        self.averages: dict[nn.Parameter, Tensor] = {}
        self._trained: dict[nn.Parameter, Tensor] = {}
        self._hold(self._statistics)
        self.configure(given)

    def weight(self, step: int) -> float:
        """Weight in [0, 1] of the newest weights in the average; 1 starts the average again.

        Args:
            step: Number of steps before this one.
        """
        raise NotImplementedError

    def _make_base(self, groups: list[ParamGroup], *base: Any) -> torch.optim.Optimizer:
        made = super()._make_base(groups, *base)
        return made if isinstance(made, FlatOptimizer) else PlainOptimizer(groups, base=made)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Leave it to the inner optimizer, which alone knows what it takes."""

    def configure(self, options: Mapping[str, Any]) -> None:
        """Change step options of the inner optimizer; those that are left out stay."""
        self.inner.configure(options)
        for name in OPTION_NAMES:
            setattr(self, name, getattr(self.inner, name))
        self.clean_first = self.inner.clean_first

    @property
    def reported(self) -> int:
        """That of the inner optimizer."""
        return self.inner.reported

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
        check_call(self, closure, scaler)
        if self._trained:
            raise UserError("Leave evaluation_params before the next optimizer step.")
        loss = self.inner.step(closure, scaler=scaler)
        self.last = self.inner.last
        if self.last["skipped"]:
            self.skipped += 1
        else:
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
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"evaluation_params takes an optimizer, got {optimizer!r}.")
    ours = isinstance(optimizer, FlatOptimizer)
    return optimizer.evaluation_params() if ours else nullcontext()
