"""Base optimizers: what takes the final gradient, by name, class, factory or object."""

import importlib
import importlib.util
import inspect
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.optim.parameters import PREFIX, ParamGroup, all_params
from mbrl_flat.settings import check_number

_Base = TypeVar("_Base", bound=torch.optim.Optimizer)

BaseFactory = Callable[[list[ParamGroup]], torch.optim.Optimizer]
"""Makes the optimizer that takes the final gradient, such as ``partial(Adam, lr=3e-4)``."""

Base = Any
"""A name, an optimizer class, a ``BaseFactory``, or an optimizer object."""

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


def make_base(base: Base, groups: list[ParamGroup], lr: float | None) -> torch.optim.Optimizer:
    """Make the base optimizer.

    Args:
        base: A name in ``BASES`` or in the package ``pytorch-optimizer``, an optimizer class, a
            factory, or an optimizer object, whose groups are taken over.
        groups: Parameter groups as torch takes them, each with ``params``.
        lr: Learning rate for a name or a class.

    Returns:
        The optimizer.

    Raises:
        UserError: If the base refuses its settings, needs the closure itself, or is an object for
            other parameters.
        UnknownNameError: If no optimizer has this name.
    """
    if lr is not None:
        check_number("lr", lr, "[0, inf)")
    if isinstance(base, torch.optim.Optimizer):
        if lr is not None:
            raise UserError(f"Give lr={lr} to the base itself: base was given as an object.")
        made = _taken_over(base, groups)
    else:
        settings: dict[str, Any] = {} if lr is None else {"lr": lr}
        if isinstance(base, str):
            # As the plain entries do: fused and unfused steps differ in their rounding.
            fused = {"fused": True} if base in ("adam", "adamw", "sgd") else {}
            base = partial(_base_class(base), **settings, **fused)
        elif isinstance(base, type):
            base = partial(base, **settings)
        elif not callable(base):
            raise UserError(
                f"base={base!r} is no base optimizer; give a name such as 'adam', a class such as "
                "torch.optim.SGD, a factory such as partial(torch.optim.SGD, lr=0.1), or an "
                "optimizer object."
            )
        elif lr is not None:
            raise UserError(f"Give lr={lr} to the base itself: base was given as a factory.")
        factory: Any = base
        made = built(factory, groups)
    _check_base(made)
    if callable(train := getattr(made, "train", None)):
        train()
    return made


def built(base: BaseFactory, groups: list[ParamGroup]) -> torch.optim.Optimizer:
    """Call a factory with the groups.

    Returns:
        The optimizer that it makes.

    Raises:
        UserError: If it refuses its settings or makes something else.
    """
    name = getattr(getattr(base, "func", base), "__name__", "The base optimizer")
    try:
        made = base(groups)
    except UserError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
        message = f"{name} refuses its settings: {error}"
    else:
        if isinstance(made, torch.optim.Optimizer):
            return made
        message = f"base={name} makes {made!r}, which is no optimizer; return one of torch's kind."
    raise UserError(message)


@contextmanager
def named_if_it_fails(base: torch.optim.Optimizer) -> Iterator[None]:
    """Turn what the step of someone else's optimizer raises into an error message.

    Raises:
        UserError: If it fails; names it.
    """
    if type(base).__module__.startswith(("torch.", "mbrl_flat.")):
        yield
        return
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever it needs that it does not have
        reason = " ".join(str(error).split())
        raise UserError(
            f"The base {type(base).__name__} fails in its step ({type(error).__name__}: {reason}). "
            f"A base is given the final gradient alone: none to differentiate again, no closure, "
            f"no processes; choose another one, such as adam or sgd."
        ) from error


def averaged_by_base(base: torch.optim.Optimizer) -> AbstractContextManager[None]:
    """Weights that a schedule-free base evaluates with, for the length of the context.

    Such an optimizer has ``train()`` and ``eval()``, which move the weights between the point where
    gradients are taken and their average.

    Args:
        base: Any base optimizer.

    Returns:
        A context; within another one, and with other bases, it does nothing.
    """
    is_averaging = callable(getattr(base, "train", None)) and callable(getattr(base, "eval", None))
    if not is_averaging or not base.state:
        return nullcontext()
    return _averaged(base)


_EVALUATING: "weakref.WeakSet[torch.optim.Optimizer]" = weakref.WeakSet()


@contextmanager
def _averaged(base: Any) -> Iterator[None]:
    if base in _EVALUATING:
        yield
        return
    _EVALUATING.add(base)
    params: list[Tensor] = list(all_params(base.param_groups))
    with torch.no_grad():
        saved = [param.clone() for param in params]
        base.eval()
    try:
        yield
    finally:
        _EVALUATING.discard(base)
        with torch.no_grad():
            base.train()
            # The way back rounds; the weights have to be those from before.
            torch._foreach_copy_(params, saved)


def _check_base(made: torch.optim.Optimizer) -> None:
    kind = type(made)
    step = inspect.signature(kind.step).parameters.values()
    needs_closure = [p.name for p in step if p.name == "closure" and p.default is p.empty]
    if needs_closure or kind is torch.optim.SparseAdam:
        raise UserError(
            f"{kind.__name__} cannot be a base: it "
            + ("evaluates the closure itself" if needs_closure else "takes sparse gradients only")
            + "; choose one that takes a gradient, such as adam or sgd."
        )
    own = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    ours = isinstance(getattr(made, "base", None), torch.optim.Optimizer)
    for group in [] if ours else made.param_groups:
        for name, value in group.items():
            if not isinstance(value, float) or math.isfinite(value) or PREFIX in name:
                continue
            if value != own.get(name):  # Prodigy's growth has no bound unless one is given.
                raise UserError(f"{kind.__name__} was given {name}={value}; give a finite number.")


def _taken_over(base: torch.optim.Optimizer, groups: list[ParamGroup]) -> torch.optim.Optimizer:
    """Let an optimizer object keep its groups, and copy what is known of their parameters."""
    keys = ("param_names", "flat_kinds", "flat_owners")
    known: dict[nn.Parameter, tuple[str, ...]] = {}
    for group in groups:
        params = [entry[1] if isinstance(entry, tuple) else entry for entry in group["params"]]
        lists = [group.get(key, [""] * len(params)) for key in keys]
        known |= dict(zip(params, zip(*lists, strict=True), strict=True))
    own = all_params(base.param_groups)
    if set(own) != set(known):
        raise UserError(
            f"The base is a {type(base).__name__} of {len(own)} parameters, and the optimizer was "
            f"given {len(known)}, which are not the same; give both the same parameters."
        )
    for group in base.param_groups:
        lists = zip(*[known[param] for param in group["params"]], strict=True)
        for key, values in zip(keys, lists, strict=True):
            if any(values):
                group[key] = list(values)
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
