"""What evaluations of a loss change beside the weights: random streams and buffers."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


class BufferSnapshot:
    """Buffers that forward passes may change, such as running statistics, at one moment.

    Args:
        known: Buffers to save in any case: those of modules in compiled code, which no hook sees.
        restricted: Parameters that alone take a gradient in this evaluation, if some do not.
    """

    def __init__(self, known: Sequence[Tensor] = (), *, restricted: Sequence[Tensor] = ()) -> None:
        self._known = [(buffer, buffer.clone()) for buffer in known]
        self._restricted = set(restricted)
        self._seen: dict[nn.Module, list[tuple[str, Tensor, Tensor]]] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Save the buffers of every module that runs in the body, as they are before it runs."""
        _watching.append(self)
        _hooks[_hook.id] = _before_forward
        try:
            yield
        finally:
            _watching.remove(self)
            if not _watching:
                _hook.remove()

    def remember(self, module: nn.Module) -> None:
        """Copy the buffers of a module unless that was done before."""
        if module not in self._seen:
            own = module.named_buffers(recurse=False)
            self._seen[module] = [(name, buffer, buffer.clone()) for name, buffer in own]

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
        """Set the buffers to this moment."""
        for buffer, saved in self._known:
            buffer.copy_(saved)
        for module, rows in self._seen.items():
            for name, buffer, saved in rows:
                buffer.copy_(saved)
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)


@contextmanager
def frozen_statistics(known: Sequence[Tensor] = ()) -> Iterator[None]:
    """Undo what forward passes in the body do to buffers.

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
