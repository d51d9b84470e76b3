"""An optimizer around another one, whose state says what made it and for which parameters."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from mbrl_flat.optim.state_checks import (
    check_groups,
    check_state,
    identity,
    own_keys,
    restore_keys,
    without_own_keys,
)


class SavedOptimizer(torch.optim.Optimizer):
    """Saves and restores the base and what a method keeps itself.

    Attributes:
        base_optimizer: The optimizer whose groups and state are shared.
        method: Name in the registry; empty if it was not made by that.
        steps: Steps so far.
        skipped: Steps so far that moved no weight.
    """

    base_optimizer: Any
    method = ""
    steps = 0
    skipped = 0
    _base_keys: Iterable[str] = ()
    """Keys of the groups that are the base's own."""

    def _share(self) -> None:
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    def state_dict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """State of the base, what the method itself keeps between steps, and whose both are."""
        base = without_own_keys(self.base_optimizer.state_dict())
        own = {"base": base, "perturbation": self._own_state()}
        return {**own, **identity(self._made_by(), self.param_groups)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Restore what ``state_dict`` gave.

        Args:
            state_dict: State of the same method and base with the same groups. If it is that of
                something else, a ``UserError`` says so and nothing is changed.
        """
        self._check_state(state_dict)
        kept = own_keys(self.param_groups)
        self.base_optimizer.load_state_dict(dict(state_dict["base"]))
        self._share()
        restore_keys(self.param_groups, kept, self._base_keys)
        self._load_own_state(state_dict["perturbation"])

    def _check_state(self, state: Mapping[str, Any]) -> None:
        entries = self._own_state()
        check_state(state, made_by=self._made_by(), groups=self.param_groups, entries=entries)
        if isinstance(self.base_optimizer, SavedOptimizer):
            self.base_optimizer._check_state(state["base"])
        else:
            check_groups(state["base"], self.param_groups)

    def _made_by(self) -> list[str]:
        """Names of the method and of its base."""
        inner = self.base_optimizer
        base = inner._made_by() if isinstance(inner, SavedOptimizer) else [type(inner).__name__]
        return [self.method or type(self).__name__, *base]

    def _own_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "skipped": self.skipped}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self.steps = int(state["steps"])
        self.skipped = int(state["skipped"])

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only three attributes, which would drop the base from copies and pickles. The
        # step that a scheduler of the learning rate sets on an instance is that of the original.
        return {name: value for name, value in self.__dict__.items() if name != "step"}
