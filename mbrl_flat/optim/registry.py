"""Optimizers by name: the catalogue behind ``optimizer=NAME`` and ``make_optimizer``."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeVar

import torch
from torch import nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.base import BaseFactory, FlatOptimizer, Params, StepOptions
from mbrl_flat.optim.groups import module_groups

_Base = TypeVar("_Base", bound=torch.optim.Optimizer)

BASES: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "radam": torch.optim.RAdam,
    "nadam": torch.optim.NAdam,
}
"""Optimizers that take the final gradient, by the names that ``base=`` accepts."""


def register_base(name: str) -> Callable[[type[_Base]], type[_Base]]:
    """Let ``base=NAME`` mean an optimizer of our own.

    Returns:
        A decorator that leaves the class as it is.
    """

    def enter(kind: type[_Base]) -> type[_Base]:
        BASES[name] = kind
        return kind

    return enter


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered optimizer.

    Attributes:
        name: What the user writes.
        build: ``build(params, *, base=..., **settings)``.
        paper: Where the method comes from; empty for a plain optimizer.
        evaluations: Gradient evaluations of the loss in one step, with default settings.
        has_base: Whether it is given a base optimizer.
        memory: The most that a step holds besides weights, gradients and the state of the base
            (Adam's two moments for a method that has none), in copies of the parameters.
        clean_first: Whether the first evaluation of a step is at the weights before it. If not,
            what an agent computes on the side in its first evaluation is that of other weights.
        neutral: Settings with which the method is its base bit for bit; empty if there are none.
        exact_restore: Whether weights come back from a perturbation bit for bit; if not, up to one
            rounding.
        needs: What it needs beyond a closure, in a few words.
    """

    name: str
    build: Callable[..., FlatOptimizer]
    paper: str
    evaluations: float
    has_base: bool
    memory: float
    clean_first: bool
    neutral: Mapping[str, Any]
    exact_restore: bool
    needs: str

    @property
    def settings(self) -> dict[str, Any]:
        """Names of the method's own settings with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {
            p.name: p.default
            for p in parameters
            if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "base"
        }


OPTIMIZERS: dict[str, Entry] = {}
"""Every registered optimizer by name."""


def register(
    name: str,
    *,
    paper: str,
    evaluations: float,
    memory: float,
    clean_first: bool = True,
    neutral: Mapping[str, Any] | None = None,
    exact_restore: bool = True,
    needs: str = "",
) -> Callable[[Callable[..., FlatOptimizer]], Callable[..., FlatOptimizer]]:
    """Enter a builder in the catalogue; see ``Entry`` for what the arguments say.

    Returns:
        A decorator after which what the builder makes knows the name.
    """

    def enter(build: Callable[..., FlatOptimizer]) -> Callable[..., FlatOptimizer]:
        @wraps(build)
        def named(*args: Any, **settings: Any) -> FlatOptimizer:
            optimizer = build(*args, **settings)
            optimizer.method = name
            return optimizer

        OPTIMIZERS[name] = Entry(
            name=name,
            build=named,
            paper=paper,
            evaluations=evaluations,
            has_base="base" in inspect.signature(build).parameters,
            memory=memory,
            clean_first=clean_first,
            neutral=neutral or {},
            exact_restore=exact_restore,
            needs=needs,
        )
        return named

    return enter


_DRIVER = tuple(StepOptions.__annotations__)


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
        base: Name in ``BASES`` or in the package ``pytorch-optimizer`` (``lion``), or a factory
            such as ``partial(torch.optim.SGD, lr=0.1)``; Adam if none is given. Only for methods
            that have a base.
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
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", name, OPTIMIZERS)
    entry = OPTIMIZERS[name]
    for key in settings:
        if key not in entry.settings and key not in _DRIVER:
            raise UnknownNameError("setting", key, [*entry.settings, *_DRIVER], where=name)
    groups = module_groups({"": params}) if isinstance(params, nn.Module) else params
    if entry.has_base:
        settings["base"] = _base_factory("adam" if base is None else base, lr)
    elif base is not None:
        raise UserError(
            f"{name} takes no base; leave base={base!r} out, or choose a method with one."
        )
    elif lr is not None:
        settings["lr"] = lr
    return entry.build(groups, **settings)


def _base_factory(base: str | BaseFactory, lr: float | None) -> BaseFactory:
    if isinstance(base, str):
        settings: dict[str, Any] = {} if lr is None else {"lr": lr}
        # As the plain entries do: fused and unfused steps differ in their rounding.
        fused = {"fused": True} if base in ("adam", "adamw", "sgd") else {}
        return partial(_base_class(base), **settings, **fused)
    if lr is not None:
        raise UserError(f"Give lr={lr} to the base itself: base was given as a factory.")
    return base


def _base_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Optimizer of torch, or of the package ``pytorch-optimizer`` where that is installed."""
    if name in BASES:
        return BASES[name]
    if importlib.util.find_spec("pytorch_optimizer") is None:
        error = UnknownNameError("base optimizer", name, BASES)
        raise UserError(f"{error} The package pytorch-optimizer, if installed, brings more.")
    package = importlib.import_module("pytorch_optimizer")
    others = package.get_supported_optimizers()
    if name not in others:
        raise UnknownNameError("base optimizer", name, [*BASES, *others])
    return package.load_optimizer(name)
