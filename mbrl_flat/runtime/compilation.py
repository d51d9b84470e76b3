"""Compile what runs many thousands of times: once, in a folder of its own, and not in silence.

A compiled function is made for the shapes it meets and is kept. If it meets no new ones it is
never compiled again, and where a second compilation would be the rule (a limit of the compiler)
there is an error instead of a quiet fall back to slow code.
"""

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mbrl_flat.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

FUSED_THREADS = 4
"""With more threads than this, torch's parallel passes are as fast as fused operators."""
_LONG = 100_000
"""Steps from which on a minute of compiling is less than a hundredth of a run."""
_VARIANTS = 64
"""Shapes, gradient modes and sets of frozen parameters that one function may be compiled for."""


def use_compile_cache(folder: Path | None = None) -> Path:
    """Keep compiled code in a folder that no other program shares, unless one was chosen.

    Args:
        folder: Where; by default ``mbrl_flat/compiled`` in the user's cache.

    Returns:
        The folder that the compiler will use.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    chosen = folder or cache / "mbrl_flat" / f"compiled-torch-{torch.__version__}"
    return Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(chosen)))


def pays(wanted: bool | str, device: torch.device, *, steps: int) -> bool:
    """Say whether to compile.

    Args:
        wanted: Yes, no, or ``auto``.
        device: Where the run computes.
        steps: Its length.

    Returns:
        What was wanted. ``auto`` compiles runs of at least ``_LONG`` steps where there is a
        compiler; on a CPU only with so many threads that fused operators are not used.

    Raises:
        UserError: If ``wanted`` is another word.
    """
    if isinstance(wanted, bool):
        return wanted
    if wanted != "auto":
        raise UserError(f"compile must be true, false or auto, got {wanted!r}.")
    if device.type == "cpu":
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
        free = torch.get_num_threads() > FUSED_THREADS
    else:
        compiler, free = device.type == "cuda" and importlib.util.find_spec("triton"), True
    return bool(compiler) and free and steps >= _LONG


class Compiled(Generic[P, T]):
    """A function that is compiled when it is first called, and says so on the standard error.

    Args:
        function: A function of tensors without side effects.
        name: What the message calls it.
        graphs: Record CUDA graphs. Then what a call returns lives only until the next call of
            any compiled function: take a copy, see ``owned``. Elsewhere than on CUDA this changes
            nothing.
    """

    def __init__(self, function: Callable[P, T], name: str, *, graphs: bool = False) -> None:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
        self.name, self.graphs = name, graphs
        self.called = False
        mode = "reduce-overhead" if graphs and torch.cuda.is_available() else None
        self._function = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it; the first time this takes as long as compiling does."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        if self.called:
            return self._function(*args, **kwargs)
        sys.stderr.write(f"compiling {self.name}: the first call takes a while\n")
        start = time.monotonic()
        result = self._function(*args, **kwargs)
        sys.stderr.write(f"compiled {self.name} in {time.monotonic() - start:.0f} s\n")
        self.called = True
        return result


def owned(result: T) -> T:
    """Copy every tensor of a result, so that a later replay of a CUDA graph leaves it alone."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), result)


def own_gradients(params: list[nn.Parameter]) -> None:
    """Copy every gradient out of the memory of a CUDA graph."""
    for param in params:
        if param.grad is not None:
            param.grad = param.grad.clone()
