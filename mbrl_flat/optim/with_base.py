"""Methods around a base optimizer of the user's choice."""

from contextlib import AbstractContextManager
from dataclasses import InitVar, dataclass
from typing import Any

import torch

from mbrl_flat.optim.base import FlatOptimizer
from mbrl_flat.optim.base_optimizers import Base, averaged_by_base, make_base
from mbrl_flat.optim.parameters import ParamGroup
from mbrl_flat.optim.signature import names_arguments


@dataclass(kw_only=True, eq=False, repr=False)
class HasBase(FlatOptimizer):
    """A method whose final gradient goes to a base optimizer of the user's choice.

    Attributes:
        base: A name (``adam``, ``sgd``, ``muon``, one of the package ``pytorch-optimizer``), an
            optimizer class, a factory such as ``partial(torch.optim.SGD, lr=0.1)``, or an optimizer
            object, whose groups are taken over.
        lr: Learning rate of a base that is given by name or class.
    """

    base: InitVar[Base] = "adam"
    lr: InitVar[float | None] = None

    def _make_base(self, groups: list[ParamGroup], *base: Any) -> torch.optim.Optimizer:
        kind, lr = base
        return make_base(kind, groups, lr)

    def evaluation_params(self) -> AbstractContextManager[None]:
        """Weights of a schedule-free base in evaluation mode; otherwise those there are."""
        return averaged_by_base(self.base_optimizer)


@names_arguments
@dataclass(kw_only=True, eq=False, repr=False)
class PlainOptimizer(HasBase):
    """The base optimizer behind the common interface: one evaluation, no perturbation."""

    def _made_by(self) -> list[str]:
        return super()._made_by()[1:]
