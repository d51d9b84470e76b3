"""Several parameters as one flat vector, and back; weights moved along such a vector for a while.

One flat vector beats a list of tensors here: Lanczos multiplies by a whole basis at once, which
for lists would take a call for each parameter and basis vector.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors of any shapes into one vector ``[n]``."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector ``[n]`` into views of the shapes of ``like``."""
    parts = vector.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of ``[n]`` and ``[n]``, summed pairwise."""
    # BLAS and Tensor.norm add up float32 on the CPU in a few running sums, which for millions of
    # entries costs up to 0.3%: enough to make an eigenvalue wrong by as much.
    return (x * y).sum()


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of ``[n]``, summed pairwise; NaN or infinite only if an entry is."""
    length = dot(x, x).sqrt()
    if x.numel() == 0 or 0.0 < float(length) < float("inf"):
        return length
    # Squares over- or underflow long before the norm does.
    scale = x.abs().max()
    if scale == 0.0 or not torch.isfinite(scale):
        return scale
    scaled = x / scale
    return scale * dot(scaled, scaled).sqrt()


@contextmanager
def perturbed(params: Sequence[Tensor], perturbation: Tensor) -> Iterator[None]:
    """Hold the weights at ``w + e`` for a perturbation ``e`` ``[n]``; then copy ``w`` back.

    Adding and subtracting would leave rounding errors behind, and swapping the storage would pass
    by compiled code, which holds the original one.
    """
    tensors = list(params)
    with torch.no_grad():
        saved = [tensor.clone() for tensor in tensors]
        torch._foreach_add_(tensors, split(perturbation, tensors))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(tensors, saved)
