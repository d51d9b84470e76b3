"""What evaluations of a loss change beside the weights: random streams, buffers, attributes."""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


class RNGSnapshot:
    """State of Python's, NumPy's and torch's global random streams at one moment."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002 - augmentations draw from it
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def rewind(self) -> None:
        """Set the streams to this moment."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


_watching: "list[BufferSnapshot]" = []


def _before_forward(module: nn.Module, args: tuple[Any, ...]) -> Any:
    """Tell the snapshots that a module is about to run; compiled code skips this."""
    if torch.compiler.is_compiling():
        return None
    for snapshot in _watching:
        snapshot.remember(module)
        args = snapshot.with_gradient(module, args)
    return args


# The hook keeps one number, under which it is added and removed: a compiler specialises code for
# the number of a hook, and would compile again for every new one.
_hook = register_module_forward_pre_hook(_before_forward)
_hooks = cast(dict[int, Any], _hook.hooks_dict_ref())
_hook.remove()


_TORCH_NAMES = frozenset(vars(nn.Module()))
_REGISTERED = ("_parameters", "_buffers", "_modules")
_MAX_ENTRIES = 1000
_MAX_DEPTH = 3
_CONTAINERS = (list, tuple, dict, deque, set)
_PLAIN = (Tensor, np.ndarray, np.generic, int, float, complex, str, NoneType, *_CONTAINERS)


def _attributes(module: nn.Module) -> list[tuple[str, Any, Any]]:
    """State in a module's plain attributes: tensors, arrays, numbers, and containers of them.

    Modules of torch have none. Containers of over 1,000 entries, their fourth level, tensors with a
    gradient, and objects of other kinds than Python's keep what is done to them.

    Returns:
        Names, values, and copies of what may change in place.
    """
    if type(module).__module__.startswith("torch."):
        return []
    return [
        (name, value, _contents(value))
        for name, value in vars(module).items()
        if name not in _TORCH_NAMES and isinstance(value, _PLAIN)
    ]


def _contents(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """Copy what may change in place."""
    if isinstance(value, Tensor):
        return None if value.requires_grad or value.is_inference() else value.clone()
    if isinstance(value, np.ndarray):
        return value.copy() if value.flags.writeable else None
    if not isinstance(value, _CONTAINERS) or depth == 0 or len(value) > _MAX_ENTRIES:
        return None
    if not isinstance(value, tuple) and type(value).__module__ not in ("builtins", "collections"):
        return None  # A class of a package's own may refuse to be filled, as diffusers' FrozenDict.
    rows = value.items() if isinstance(value, dict) else enumerate(value)
    return [(key, item, _contents(item, depth - 1)) for key, item in rows]


def _put_back(value: Any, contents: Any) -> None:
    if contents is None:
        return
    if isinstance(value, Tensor):
        if value.shape == contents.shape:
            value.copy_(contents)
        return
    if isinstance(value, np.ndarray):
        value[...] = contents
        return
    if not isinstance(value, tuple):
        value.clear()
    if isinstance(value, dict):
        value.update((key, item) for key, item, _ in contents)
    elif not isinstance(value, tuple):
        (value.update if isinstance(value, set) else value.extend)(item for _, item, _ in contents)
    for _, item, inner in contents:
        _put_back(item, inner)


class BufferSnapshot:
    """Buffers and attributes that forward passes may change, such as statistics, at one moment.

    Args:
        known: Buffers to save in any case: those of modules in compiled code, which no hook sees.
        restricted: Parameters that alone take a gradient in this evaluation, if some do not.
    """

    def __init__(self, known: Sequence[Tensor] = (), *, restricted: Sequence[Tensor] = ()) -> None:
        self._known = [(buffer, buffer.clone()) for buffer in known]
        self._restricted = set(restricted)
        self._seen: dict[nn.Module, list[tuple[str, Tensor, Tensor]]] = {}
        self._attributes: list[tuple[nn.Module, list[tuple[str, Any, Any]]]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Save the state of every module that runs in the body, as it is before it runs."""
        _watching.append(self)
        _hooks[_hook.id] = _before_forward
        try:
            yield
        finally:
            _watching.remove(self)
            if not _watching:
                _hook.remove()

    def remember(self, module: nn.Module) -> None:
        """Copy buffers and attributes of a module unless that was done before."""
        if module not in self._seen:
            own = module.named_buffers(recurse=False)
            self._seen[module] = [(name, buffer, buffer.clone()) for name, buffer in own]
            if plain := _attributes(module):
                self._attributes.append((module, plain))

    def with_gradient(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let the input of a layer whose parameters take a gradient take one too.

        Some kernels of torch (GroupNorm on a CPU with channels_last) crash where the parameters
        take a gradient and the input does not, which is so only because other parameters take none.

        Args:
            module: About to run.
            args: Its positional arguments.

        Returns:
            The arguments to run it with.
        """
        own = module.parameters(recurse=False) if self._restricted else ()
        if not torch.is_grad_enabled() or not any(param in self._restricted for param in own):
            return args
        floats = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        if not floats or any(tensor.requires_grad for tensor in floats):
            return args
        return tuple(
            a.detach().requires_grad_() if any(a is tensor for tensor in floats) else a
            for a in args
        )

    @torch.no_grad()
    def rewind(self) -> None:
        """Set buffers and attributes to this moment."""
        for module, plain in self._attributes:
            own = vars(module)
            for name, value, contents in plain:
                # What became a parameter, buffer or module, made at its first use, stays.
                if not any(name in own[kind] for kind in _REGISTERED):
                    own[name] = value
                    _put_back(value, contents)
        for buffer, saved in self._known:
            buffer.copy_(saved)
        for module, rows in self._seen.items():
            for name, buffer, saved in rows:
                buffer.copy_(saved)
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)


@contextmanager
def frozen_statistics(known: Sequence[Tensor] = ()) -> Iterator[None]:
    """Undo what forward passes in the body do to buffers and attributes of modules.

    BatchNorm and SyncBatchNorm still normalise by the statistics of the batch, as in training.

    Args:
        known: See ``BufferSnapshot``.
    """
    snapshot = BufferSnapshot(known)
    try:
        with snapshot.watched():
            yield
    finally:
        snapshot.rewind()
