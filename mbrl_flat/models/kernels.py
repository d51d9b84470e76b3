"""Small fused operators for one CPU thread, compiled from C when first needed.

LayerNorm with Mish or SimNorm, and the decoding and cross entropy of two-hot outputs, each in one
pass over the rows instead of ten. Results equal torch's own operations to rounding. They are used
for float32 tensors on a CPU with few threads; anything else, and derivatives of second order, go
through torch. ``MBRL_FLAT_KERNELS=0`` turns them off.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbrl_flat.runtime import c_library
from mbrl_flat.runtime.compilation import FUSED_THREADS

Reference = Callable[..., Tensor]
"""A function in torch's own operations, for derivatives of second order."""

SOURCES = [
    Path(__file__).with_name(f"{name}.c")
    for name in ("kernels", "plan", "loss", "policy", "posterior", "noise")
]
"""One compilation: the later ones use the earlier ones' functions."""


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they are turned off or there is no C compiler."""
    loaded = c_library.load(SOURCES, instead="running without fused operators")
    if loaded is None:
        return None
    for name, kinds in _SIGNATURES.items():
        kind = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float}
        getattr(loaded, name).argtypes = [kind[letter] for letter in kinds]
        getattr(loaded, name).restype = ctypes.c_int64 if kinds == "ppp" else None
    return loaded


_SIGNATURES = {
    "norm_forward": "pppppiiiif",
    "norm_backward": "pppppppppiiii",
    "decode_forward": "pppii",
    "decode_backward": "ppppii",
    "entropy_forward": "ppppiii",
    "entropy_backward": "pppppiii",
    "squash_forward": "ppipppiiff",
    "squash_backward": "pppppppiiff",
    "networks_forward": "ppipipippppif",
    "networks_backward": "pppipipipppppiii",
    "plan": "ppp",
    "model_loss": "ppp",
    "policy_forward": "ppp",
    "policy_backward": "ppp",
    "posterior_move": "pppppifffffff",
    "normal_noise": "ppiiff",
}
"""Pointers, integers and floats of each function."""


_switch = {"off": False}


@contextmanager
def turned_off() -> Iterator[None]:
    """Compute by torch's operators in this block; blocks do not nest."""
    try:
        yield _switch.update(off=True)
    finally:
        _switch["off"] = False


def available() -> bool:
    """Whether there are compiled functions and nobody turned them off."""
    return not _switch["off"] and library() is not None


def usable(*tensors: Tensor) -> bool:
    """Whether all of them may go through the compiled functions."""
    tracing = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    if tracing or torch.get_num_threads() > FUSED_THREADS:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    for tensor in tensors:  # A loop, since a step asks for hundreds.
        if tensor.dtype is not torch.float32 or not tensor.is_cpu:
            return False
    return available()


def call(name: str, *arguments: Tensor | int | float | None) -> Any:
    """Call a compiled function; tensors are passed by their addresses."""
    values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    return getattr(library(), name)(*values)


def second_order(
    needed: Sequence[bool], reference: Reference, inputs: tuple[Tensor, ...], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated in turn: those of the same value in torch's terms."""
    # Views, so that only this use counts: an input may itself depend on another one, as a latent
    # of a rollout depends on the weights of the dynamics.
    views = tuple(x.view_as(x) for x in inputs)
    wanted = [x for x, want in zip(views, needed, strict=False) if want]
    found = iter(torch.autograd.grad(reference(*views), wanted, grad, create_graph=True))
    return tuple(next(found) if want else None for _, want in zip(views, needed, strict=False))


def norm_activation(
    x: Tensor, weight: Tensor, bias: Tensor, *, size: int, eps: float, reference: Reference
) -> Tensor:
    """LayerNorm, then Mish (``size`` 0) or SimNorm; see ``activations.norm_activation``."""
    if not torch.is_grad_enabled():
        inputs = (x.contiguous(), weight.contiguous(), bias.contiguous())
        return _norm_forward(inputs, None, size, eps)
    return _NormActivation.apply(x, weight, bias, (size, eps, reference))  # pyright: ignore[reportReturnType]


def _norm_forward(
    inputs: tuple[Tensor, Tensor, Tensor], moment: Tensor | None, size: int, eps: float
) -> Tensor:
    x, weight, bias = inputs
    y = torch.empty_like(x)
    call("norm_forward", x, weight, bias, y, moment, *_norm_sizes(x, weight), size, eps)
    return y


def _norm_sizes(x: Tensor, weight: Tensor) -> tuple[int, int, int]:
    """Rows, features, and rows of a member."""
    features = x.shape[-1]
    rows, members = x.numel() // features, weight.numel() // features
    return rows, features, max(rows // members, 1)


def decode(logits: Tensor, bins: Tensor, *, reference: Reference) -> Tensor:
    """``symexp(softmax(logits) @ bins)``, ``[..., N]`` to ``[...]``; the bins get no gradient."""
    return _Decode.apply(logits, bins, reference)  # pyright: ignore[reportReturnType]


def cross_entropy(logits: Tensor, lower: Tensor, share: Tensor, *, reference: Reference) -> Tensor:
    """Two-hot cross entropy ``[...]``; see ``functional.two_hot_cross_entropy``.

    Args:
        logits: ``[..., N]``.
        lower: Lower bins, with the last of the leading dimensions of ``logits``.
        share: Like ``lower``: share of the bin above.
        reference: The same function of the logits in torch's operations.

    Returns:
        ``[...]``.
    """
    return _CrossEntropy.apply(logits, (lower.contiguous(), share.contiguous()), reference)  # pyright: ignore[reportReturnType]


def squash(
    x: Tensor, noise: Tensor, bounds: tuple[float, float], *, reference: Reference
) -> tuple[Tensor, Tensor, Tensor]:
    """Actions of a squashed Gaussian ``[..., A]`` and its entropies ``[...]``; see ``Policy``.

    Args:
        x: Means and unbounded logarithms of deviations ``[..., 2 A]``.
        noise: Standard normal ``[..., A]``.
        bounds: Of the logarithms of deviations.
        reference: The same function of ``x`` in torch's operations; gives the three stacked to
            ``[..., A + 2]``.

    Returns:
        Actions ``[..., A]``, entropies and scaled entropies ``[...]``.
    """
    return _Squash.apply(x, noise, bounds, reference)  # pyright: ignore[reportReturnType]


class _Squash(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, noise: Tensor, bounds: tuple[float, float], reference: Reference
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, noise = x.contiguous(), noise.contiguous()
        size, rows = noise.shape[-1], noise.numel() // noise.shape[-1]
        action, entropy = torch.empty_like(noise), noise.new_empty(2, *noise.shape[:-1])
        ctx.sizes, ctx.reference = (rows, size, *bounds), reference
        call("squash_forward", x, noise, size, action, entropy[0], entropy[1], *ctx.sizes)
        ctx.save_for_backward(x, noise, action)
        ctx.set_materialize_grads(False)
        return action, entropy[0], entropy[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, noise, action = ctx.saved_tensors
        if torch.is_grad_enabled():
            shapes = (action, action[..., :1], action[..., :1])
            pairs = zip(grads, shapes, strict=True)
            whole = [torch.zeros_like(y) if g is None else g.view_as(y) for g, y in pairs]
            needed, joint = ctx.needs_input_grad[:1], torch.cat(whole, -1)
            return (*second_order(needed, ctx.reference, (x,), joint), None, None, None)
        gx = torch.empty_like(x)
        owned = [None if grad is None else grad.contiguous() for grad in grads]
        call("squash_backward", x, noise, action, *owned, gx, *ctx.sizes)
        return gx, None, None, None


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, how: tuple[int, float, Reference]
    ) -> Tensor:
        size, eps, ctx.reference = how
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        moment = x.new_empty(x.numel() // x.shape[-1], 2)
        y = _norm_forward((x, weight, bias), moment, size, eps)
        ctx.size = size
        ctx.save_for_backward(x, weight, bias, moment, y if size else None)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias, moment, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (
                *second_order(ctx.needs_input_grad, ctx.reference, (x, weight, bias), grad),
                None,
            )
        gx, gw, gb = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        sizes = (*_norm_sizes(x, weight), ctx.size)
        call("norm_backward", grad.contiguous(), x, y, weight, bias, moment, gx, gw, gb, *sizes)
        return gx, gw, gb, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bins: Tensor, reference: Reference) -> Tensor:
        logits = logits.contiguous()
        out = logits.new_empty(logits.shape[:-1])
        call("decode_forward", logits, bins, out, out.numel(), logits.shape[-1])
        ctx.save_for_backward(logits, bins)
        ctx.reference = reference
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, bins = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*second_order(ctx.needs_input_grad, ctx.reference, (logits,), grad), None, None)
        gx, sizes = torch.empty_like(logits), (grad.numel(), logits.shape[-1])
        call("decode_backward", grad.contiguous(), logits, bins, gx, *sizes)
        return gx, None, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, position: tuple[Tensor, Tensor], reference: Reference
    ) -> Tensor:
        logits = logits.contiguous()
        out = logits.new_empty(logits.shape[:-1])
        ctx.sizes = (out.numel(), logits.shape[-1], position[0].numel())
        call("entropy_forward", logits, *position, out, *ctx.sizes)
        ctx.save_for_backward(logits, *position)
        ctx.reference = reference
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, lower, share = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*second_order(ctx.needs_input_grad, ctx.reference, (logits,), grad), None, None)
        gx = torch.empty_like(logits)
        call("entropy_backward", grad.contiguous(), logits, lower, share, gx, *ctx.sizes)
        return gx, None, None
