"""Classes of optimizers as users meet them: what ``help`` shows and which arguments are refused."""

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import InitVar
from functools import partial, wraps
from textwrap import fill
from typing import Any, TypeVar

from mbrl_flat.optim.step_options import OPTION_NAMES

_Kind = TypeVar("_Kind", bound=type[Any])

SHARED = ("every", "only", "unselected_gradient")
"""Settings of many methods, which stand after those of one."""

_ATTRIBUTES = re.compile(r"^Attributes:\n((?:[ ]{4}.*\n|\n(?=[ ]{4}))+)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^(\w+): (.*(?:\n[ ]{4,}.*)*)", re.MULTILINE)

_PACKAGE = re.compile(r"\b(?:[A-Za-z_]\w*\.)+")

_NULL = re.compile(r"\bnull\b")  # as configurations have it
_wrapped = partial(
    fill, width=100, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False
)

_BASE_HINT = (
    " Settings of the base belong to the base, such as "
    "base=partial(torch.optim.SGD, lr=0.1, momentum=0.9)."
)


def meanings(kind: type) -> dict[str, str]:
    """What the docstrings of a class and of its bases say of each setting."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        own = each.__dict__.get("_meanings")
        found |= _attributes(each.__dict__.get("__doc__")) if own is None else own
    return found


def _attributes(docstring: str | None) -> dict[str, str]:
    text = inspect.cleandoc(docstring or "") + "\n"
    pairs = [
        pair
        for block in _ATTRIBUTES.findall(text)
        for pair in _ATTRIBUTE.findall(inspect.cleandoc(block))
    ]
    return {name: " ".join(words.split()) for name, words in pairs}


def names_arguments(kind: _Kind) -> _Kind:
    """Let a class name the arguments that it takes where it is given others.

    Args:
        kind: The class.

    Returns:
        The same class. Its constructor raises a ``TypeError`` that lists them; its signature has
        the options of a step last.
    """
    init: Callable[..., None] = kind.__init__
    given = inspect.signature(init)
    params = [
        p.replace(annotation=p.annotation.type) if isinstance(p.annotation, InitVar) else p
        for p in given.parameters.values()
    ]
    ordered = sorted(params, key=lambda p: (p.kind, p.default is not p.empty, _place(p.name)))
    signature = given.replace(parameters=ordered)
    _, first, *others = signature.parameters

    @wraps(init)
    def checked(self: Any, *args: Any, **settings: Any) -> None:
        try:
            given.bind(self, *args, **settings)
        except TypeError as error:
            hint = _BASE_HINT if "base" in others and (len(args) > 1 or settings) else ""
            raise TypeError(
                f"{type(self).__name__}: {error}; it takes {first}, and by name "
                f"{', '.join(others)}.{hint}"
            ) from None
        init(self, *args, **settings)

    checked.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    kind.__init__ = checked
    return kind


def _place(name: str) -> int:
    """Base and rate first, then settings of the method, those of many, and options of a step."""
    places = (("self", "params", "base", "lr"), SHARED, OPTION_NAMES)
    return next((place for place, names in zip((0, 2, 3), places, strict=True) if name in names), 1)


def describe(kind: type) -> None:
    """Write the docstring of a registered class out: equations, source, arguments, an example."""
    known, own = meanings(kind), inspect.cleandoc(kind.__doc__ or "")
    setattr(kind, "_meanings", _attributes(own))  # noqa: B010 - types have no such attribute
    module = inspect.cleandoc(getattr(sys.modules.get(kind.__module__), "__doc__", None) or "")
    params = inspect.signature(kind).parameters.values()
    lines = [
        f"{p.name}{_type_and_default(p)}: {re.sub(_NULL, 'None', known.get(p.name, ''))}"
        for p in params
        if p.name not in OPTION_NAMES
    ]
    lines.append(f"Options of a step, see mbrl_flat.optim.StepOptions: {', '.join(OPTION_NAMES)}.")
    arguments = "\n".join(_wrapped(line) for line in lines)
    kind.__doc__ = (
        f"{module}\n\n{_ATTRIBUTES.sub('', f'{own}{chr(10)}').strip()}\n\n"
        f"Args:\n{arguments}\n\nExample:\n"
        "    >>> # closure() zeroes the gradients, computes the loss, calls backward, returns it.\n"
        f"    >>> optimizer = {kind.__name__}(model{example_arguments(kind)})\n"
        "    >>> loss = optimizer.step(closure)\n"
    )


def example_arguments(kind: type) -> str:
    """Arguments after the model with which an example makes the optimizer."""
    params = inspect.signature(kind).parameters
    base = ', base="adam", lr=1e-3' if "base" in params else ""
    return f"{base}, rho={params['rho'].default:g}" if "rho" in params else base


def _type_and_default(param: inspect.Parameter) -> str:
    if param.default is param.empty:
        return ""
    kind = re.sub(_PACKAGE, "", inspect.formatannotation(param.annotation))
    words = "" if param.annotation is Any else f"{kind}, "
    return f" ({words}default {param.default!r})"
