"""Whole multi-layer perceptrons, single or side by side, as one operator each way.

On a CPU the networks of a small agent spend more time between operators than in them. Here all
layers of a network run in one call of ``kernels.c``, with the products of a BLAS. Where that cannot
be (see ``kernels.usable``), and for derivatives of second order, the same function is computed by
torch's operators.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from mbrl_flat.models import kernels
from mbrl_flat.models.activations import norm_activation
from mbrl_flat.runtime import c_library

LINEAR = -1
"""``Layer.size`` of a layer without normalisation; 0 stands for Mish."""

EPS = 1e-5
"""What LayerNorm adds to the variance."""


_ALL_ROWS = 2**62
"""Rows of the input that share a bias."""


class Layer(NamedTuple):
    """Parameters of one layer; with a leading dimension ``K`` for K networks side by side."""

    weight: Tensor
    """``[out, in]`` or ``[K, out, in]``."""
    bias: Tensor
    gain: Tensor | None = None
    """Of LayerNorm, like ``bias``; None in a linear layer."""
    shift: Tensor | None = None
    size: int = LINEAR
    """Members of a SimNorm group; 0 for Mish."""


class _Form(NamedTuple):
    """What a call needs beside tensors with a gradient."""

    sizes: tuple[int, ...]
    """``Layer.size`` of each layer."""
    members: tuple[int, ...] | None
    """Which of K networks; None for a single one."""
    mask: Tensor | None
    """Factors ``[M, R, out]`` of the first layer's linear output."""
    shared: Tensor | None
    """Bias ``[G, out]`` of the first layer, each for R / G rows, in place of its own."""
    constant: int = 0
    """First columns of the input that take no gradient."""


def networks(
    x: Tensor,
    layers: Sequence[Layer],
    *,
    members: tuple[int, ...] | None = None,
    mask: Tensor | None = None,
    constant: int = 0,
) -> Tensor:
    """Apply the layers to ``x``.

    Args:
        x: ``[R, in]``, the same for all networks.
        layers: Hidden layers have a normalisation, the last one may be linear.
        members: The M networks wanted, where parameters have a leading dimension.
        mask: Factors ``[M, R, out]`` (or ``[R, out]``) of the linear output of the first layer.
        constant: First columns of ``x`` whose gradient nobody needs; it is zero.

    Returns:
        ``[R, out]``, or ``[M, R, out]`` with ``members``.
    """
    form = _Form(tuple(layer.size for layer in layers), members, mask, None, constant)
    params = [p for layer in layers for p in layer[:4] if p is not None]
    if not usable(x, params[0]):
        return _reference(form, x, *params)
    if not torch.is_grad_enabled():
        return _forward((x.contiguous(), params, form), None)
    return _Networks.apply(form, x, *params)  # pyright: ignore[reportReturnType]


def after_shared(right: Tensor, layers: Sequence[Layer], shared: Tensor) -> Tensor:
    """Apply the layers to ``[left, right]``, given what the first one makes of ``left``.

    Args:
        right: Last features of the input ``[G, S, A]``. No gradient is kept.
        layers: As in ``networks``, for the whole input.
        shared: First layer of ``left`` with its bias, ``[G, out]``.

    Returns:
        ``[G, S, out]``.
    """
    form = _Form(tuple(layer.size for layer in layers), None, None, shared.contiguous())
    params = [p for layer in layers for p in layer[:4] if p is not None]
    rows = right.reshape(-1, right.shape[-1]).contiguous()
    out = _forward((rows, params, form), None)
    return out.unflatten(0, right.shape[:2])


def usable(x: Tensor, weight: Tensor) -> bool:
    """Whether networks with this weight run in one call."""
    return kernels.usable(x, weight) and gemm() is not None


def gemm() -> int | None:
    """Choose the BLAS that makes the products.

    On one thread of an AMD processor without AVX-512 it is the OpenBLAS that comes with scipy,
    which is a tenth faster there than the MKL of torch.

    Returns:
        Address of its ``sgemm``; None if torch does not export its own.
    """
    return (_openblas() if torch.get_num_threads() == 1 else None) or _of_torch()


@lru_cache(maxsize=1)
def _of_torch() -> int | None:
    folder = Path(torch.__file__).parent / "lib"
    return _address_in([folder / name for name in ("libtorch_cpu.so", "libtorch_cpu.dylib")], "")


@lru_cache(maxsize=1)
def _openblas() -> int | None:
    if (
        torch.backends.cpu.get_cpu_capability() != "AVX2"
        or "AuthenticAMD" not in c_library.cpuinfo()
    ):
        return None
    found = find_spec("scipy")
    if found is None or found.origin is None:
        return None
    libraries = Path(found.origin).parents[1] / "scipy.libs"
    return _address_in(sorted(libraries.glob("libscipy_openblas-*.so")), "scipy_")


def _address_in(libraries: Sequence[Path], prefix: str) -> int | None:
    """That of ``sgemm`` in the first library which exports it."""
    for path in libraries:
        try:
            library = ctypes.CDLL(str(path))
            if prefix:
                library[f"{prefix}openblas_set_num_threads"](1)
            return ctypes.cast(library[f"{prefix}sgemm_"], ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


def _split(sizes: tuple[int, ...], params: Sequence[Any]) -> list[Any]:
    """Four entries a layer, None where a linear one has none."""
    rest, out = iter(params), list[Any]()
    for size in sizes:
        weight, bias = next(rest), next(rest)
        gain, shift = (None, None) if size < 0 else (next(rest), next(rest))
        out.append((weight, bias, gain, shift))
    return out


def _reference(form: _Form, x: Tensor, *params: Tensor) -> Tensor:
    """The same in torch's operators."""
    for depth, (parts, size) in enumerate(zip(_split(form.sizes, params), form.sizes, strict=True)):
        weight, bias, gain, shift = parts
        if form.members is not None and form.members != tuple(range(len(weight))):
            picked = list(form.members)
            weight, bias = weight[picked], bias[picked]
            if gain is not None:
                gain, shift = gain[picked], shift[picked]
        if form.members is None:
            x = F.linear(x, weight, bias)
        else:
            x = x if depth else x.expand(len(weight), -1, -1)
            x = torch.baddbmm(bias[:, None], x, weight.mT)
        if depth == 0 and form.mask is not None:
            x = x * form.mask
        if size >= 0:
            affine = cast(Tensor, gain), cast(Tensor, shift)
            x = norm_activation(x, *affine, simnorm_size=size or None, eps=EPS)
    return x


def describe(
    layers: Sequence[Layer], grads: Sequence[Tensor | None] = ()
) -> "ctypes.Array[ctypes.c_int64]":
    """The same for a whole network, for C functions that run several.

    Args:
        layers: Its parameters.
        grads: Where their gradients go, in the same order; none by default.

    Returns:
        To be kept as long as the C function runs.
    """
    values, rest = list[int](), iter(grads)
    for weight, bias, gain, shift, size in layers:
        params = (weight, bias, gain, shift)
        own = [_address(next(rest, None)) if param is not None else 0 for param in params]
        n_out, n_in = weight.shape[-2:]
        values += [weight.data_ptr(), n_in, n_in, n_out, bias.data_ptr(), _ALL_ROWS]
        values += [_address(gain), _address(shift), *own, size]
    return (ctypes.c_int64 * len(values))(*values)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _describe(
    x: Tensor, params: Sequence[Tensor], form: _Form, grads: Sequence[Any]
) -> "ctypes.Array[ctypes.c_int64]":
    """The array of ``layer`` structures that the C functions read."""
    rows, values = x.shape[0], list[int]()

    parts = zip(_split(form.sizes, params), _split(form.sizes, grads), form.sizes, strict=True)
    for (weight, bias, gain, shift), gradients, size in parts:
        n_out, n_in = weight.shape[-2:]
        start, offset, bias_rows = weight.data_ptr(), bias.data_ptr(), rows
        if form.shared is not None and not values:
            n_in, bias_rows = x.shape[1], rows // len(form.shared)
            start += 4 * (weight.shape[-1] - n_in)
            offset = form.shared.data_ptr()
        values += [start, weight.shape[-1], n_in, n_out, offset, bias_rows]
        values += [_address(gain), _address(shift), *map(_address, gradients), size]
    return (ctypes.c_int64 * len(values))(*values)


def _call(
    name: str,
    inputs: tuple[Tensor, Sequence[Tensor], _Form],
    grads: Sequence[Tensor | None],
    first: Sequence[Tensor],
    last: Sequence[Tensor | int | float | None],
) -> None:
    """Call a C function: ``first`` come before ``x`` and the networks, ``last`` after them."""
    x, params, form = inputs
    chosen = form.members or (0,)
    members = (ctypes.c_int64 * len(chosen))(*chosen)
    layers = _describe(x, params, form, grads)
    described = ctypes.addressof(layers), len(form.sizes), ctypes.addressof(members), len(chosen)
    kernels.call(name, gemm(), *first, x, x.shape[0], *described, form.mask, *last)


def _forward(inputs: tuple[Tensor, Sequence[Tensor], _Form], saved: Tensor | None) -> Tensor:
    x, params, form = inputs
    weights = [w for w, *_ in _split(form.sizes, params)]
    widest = max(max(w.shape[-2:]) for w in weights)
    lead = () if form.members is None else (len(form.members),)
    out = x.new_empty(*lead, x.shape[0], weights[-1].shape[-2])
    work = x.new_empty(2 * _aligned(x.shape[0] * widest)) if saved is None else None
    no_grads = [None] * len(params)
    _call("networks_forward", inputs, no_grads, [], [out, saved, work, widest, EPS])
    return out


class _Networks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: _Form, x: Tensor, *params: Tensor) -> Tensor:
        x = x.contiguous()
        layers = zip(_split(form.sizes, params), form.sizes, strict=True)
        rows = x.shape[0]
        sizes = [rows * w.shape[-2] for (w, *_), size in layers if size >= 0]
        saved = sum(2 * _aligned(size) + _aligned(2 * rows) for size in sizes)
        saved = x.new_empty(len(form.members or (0,)) * saved)
        out = _forward((x, params, form), saved)
        ctx.form = form
        ctx.save_for_backward(x, out, saved, *params)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, out, saved, *params = ctx.saved_tensors
        form, needed = ctx.form, ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            reference = partial(_reference, form)
            return (None, *kernels.second_order(needed, reference, (x, *params), grad))
        gx = torch.zeros_like(x) if needed[0] else None
        grads = [
            _room(p, form) if want else None for p, want in zip(params, needed[1:], strict=True)
        ]
        widest = max(max(w.shape[-2:]) for w, *_ in _split(form.sizes, params))
        work = x.new_empty(2 * _aligned(x.shape[0] * widest))
        last = [out, saved, gx, work, widest, 0, form.constant]
        _call("networks_backward", (x, params, form), grads, [grad.contiguous()], last)
        return (None, gx, *grads)


def _aligned(count: int) -> int:
    """Floats up to the end of a cache line; as in ``kernels.c``."""
    return -(-count // 16) * 16


def _room(param: Tensor, form: _Form) -> Tensor:
    """Where a gradient goes: affine ones are added to, and unused networks have none."""
    members = form.members
    single = members is None
    whole = members is None or len(members) == len(param)
    matrix = param.ndim == (2 if single else 3)
    return torch.empty_like(param) if whole and matrix else torch.zeros_like(param)
