"""Optimizers by name: the catalogue behind ``optimizer=NAME`` and ``make_optimizer``."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar, dataclass_transform

from torch import nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.base import FlatOptimizer
from mbrl_flat.optim.base_optimizers import BaseFactory
from mbrl_flat.optim.parameters import Params
from mbrl_flat.optim.signature import describe, names_arguments
from mbrl_flat.optim.step_options import OPTION_NAMES
from mbrl_flat.optim.with_base import HasBase

_Method = TypeVar("_Method", bound=FlatOptimizer)

ENTRY_POINTS = "mbrl_flat.optimizers"
"""Group of entry points whose modules register optimizers of other packages."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered optimizer.

    Attributes:
        name: What the user writes.
        build: The optimizer's class, ``build(params, *, base=..., **settings)``.
        paper: Where the method comes from, such as ``arXiv:2010.01412``; may be empty.
        evaluations: Gradient evaluations (forward and backward passes) of one step, with default
            settings.
        memory: The most that a step holds besides weights, gradients and the state of the base
            (Adam's two moments for a method that has none), in copies of the parameters.
        neutral: Settings with which the method is its base bit for bit; empty if there are none.
        exact_restore: Whether weights come back from a perturbation bit for bit; if not, up to one
            rounding.
        needs: What it needs beyond a closure, in a few words.
    """

    name: str
    build: Callable[..., FlatOptimizer]
    paper: str
    evaluations: float
    memory: float
    neutral: Mapping[str, Any] = field(default_factory=dict[str, Any])
    exact_restore: bool = True
    needs: str = ""

    @property
    def kind(self) -> type[FlatOptimizer]:
        """The optimizer's class."""
        assert isinstance(self.build, type)
        return self.build

    @property
    def has_base(self) -> bool:
        """Whether it is given a base optimizer."""
        return issubclass(self.kind, HasBase)

    @property
    def clean_first(self) -> bool:
        """Whether the first evaluation of a step is at the weights before it.

        If not, what an agent computes on the side in its first evaluation is that of other weights.
        """
        return self.kind.clean_first

    @property
    def settings(self) -> dict[str, Any]:
        """Names of the method's own settings with their defaults."""
        return self.kind.setting_defaults()


class _Catalogue(dict[str, Entry]):
    """Asked for a name that it does not know, it imports what other packages register."""

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name):
            load_entry_points()
        return super().__contains__(name)

    def __missing__(self, name: str) -> Entry:
        if name in self:
            return self[name]
        raise KeyError(str(UnknownNameError("optimizer", name, self)))


OPTIMIZERS: dict[str, Entry] = _Catalogue()
"""Every registered optimizer by name."""


@dataclass_transform(kw_only_default=True, eq_default=False)
def register(
    name: str, *, paper: str = "", evaluations: float, memory: float, **facts: Any
) -> Callable[[type[_Method]], type[_Method]]:
    """Declare a class as an optimizer: its annotated attributes are its settings.

    Args:
        name: What the user writes.
        paper: See ``Entry``.
        evaluations: See ``Entry``.
        memory: See ``Entry``.
        facts: Further attributes of ``Entry``.

    Returns:
        A decorator that makes the class a dataclass and enters it in the catalogue.
    """

    def enter(kind: type[_Method]) -> type[_Method]:
        if not (isinstance(kind, type) and issubclass(kind, FlatOptimizer)):
            raise TypeError(f"@register takes a subclass of FlatOptimizer, got {kind!r}.")
        made = dataclass(kw_only=True, eq=False, repr=False)(kind)
        made.method = name
        names_arguments(made)
        describe(made)
        OPTIMIZERS[name] = Entry(
            name=name, build=made, paper=paper, evaluations=evaluations, memory=memory, **facts
        )
        if made.__module__.startswith("mbrl_flat."):
            # Configurations of earlier revisions name a function that is spelled as the method is.
            setattr(sys.modules[made.__module__], name, made)
        return made

    return enter


def load_entry_points() -> None:
    """Import what other installed packages register under ``mbrl_flat.optimizers``."""
    for point in entry_points(group=ENTRY_POINTS):
        point.load()


def make_optimizer(
    name: str,
    params: Params | nn.Module,
    *,
    base: str | BaseFactory | None = None,
    lr: float | None = None,
    **settings: Any,
) -> FlatOptimizer:
    """Make any optimizer of the registry.

    Args:
        name: A key of ``OPTIMIZERS``.
        params: Parameters, named parameters, groups, or the module itself: then ``only`` and the
            methods that choose by the kind of layer know which parameter is what.
        base: See ``HasBase``; Adam if none is given. Only for methods that have a base.
        lr: Learning rate, of the base if there is one.
        settings: The method's own settings and those of ``StepOptions``.

    Returns:
        An optimizer with ``step(closure)``.

    Raises:
        UnknownNameError: If the optimizer or a setting is not known.
        UserError: If a base is given to a method that has none.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = make_optimizer("sam", model, base="sgd", lr=0.1, rho=0.05)
    """
    if not isinstance(name, str):
        raise UserError(
            f"make_optimizer takes a name and then the parameters, got {type(name).__name__} first."
        )
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", name, OPTIMIZERS)
    entry = OPTIMIZERS[name]
    for key in settings:
        if key not in entry.settings and key not in OPTION_NAMES:
            raise UnknownNameError("setting", key, [*entry.settings, *OPTION_NAMES], where=name)
    if not entry.has_base and base is not None:
        raise UserError(
            f"{name} takes no base; leave base={base!r} out, or choose a method with one."
        )
    given = {"base": base, "lr": lr}
    return entry.build(params, **{k: v for k, v in given.items() if v is not None}, **settings)
