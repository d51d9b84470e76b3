"""Normal noise for perturbations, at a fifth of what torch's own takes on a CPU.

On a CPU in single precision every call takes one number from the generator and makes all its noise
from that: SplitMix64 as a counter, then Box and Muller, in C where there is a compiler and in NumPy
otherwise, with the same draws up to rounding. Elsewhere torch draws.

References:
    Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
    Box & Muller, "A Note on the Generation of Random Normal Deviates", 1958.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.models import kernels

HALF = 256
"""Numbers that are drawn as cosines before as many follow as sines."""
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Precision(NamedTuple):
    """Diagonal precision ``curvature + damping`` of a Gaussian."""

    curvature: Tensor
    damping: float


def fill_normal(
    out: Tensor,
    generator: torch.Generator,
    *,
    scale: float = 1.0,
    precision: Precision | None = None,
) -> Tensor:
    """Fill a tensor with ``scale * noise / sqrt(precision)``, the noise standard normal.

    Args:
        out: Any shape; it is written to.
        generator: Of the same device; it moves on.
        scale: Standard deviation at a precision of 1.
        precision: Its curvature has the shape of ``out``; 1 by default.

    Returns:
        ``out``.
    """
    if out.device.type != "cpu" or out.dtype != torch.float32:
        out.normal_(0.0, scale, generator=generator)
    else:
        # As an integer of 64 bits with a sign.
        key = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=generator))
        curvature = None if precision is None else precision.curvature
        if not kernels.available():
            drawn = torch.from_numpy(_normal(out.numel(), key)).mul_(scale)
            out.copy_(drawn.view(out.shape))
        elif all(t is None or _lies_whole(t) for t in (out, curvature)):
            damping = 0.0 if precision is None else precision.damping
            kernels.call("normal_noise", out, curvature, out.numel(), key, scale, damping)
            return out
        else:
            drawn = torch.empty(out.shape, dtype=out.dtype)
            kernels.call("normal_noise", drawn, None, out.numel(), key, scale, 0.0)
            out.copy_(drawn)
    if precision is not None:
        out.mul_((precision.curvature + precision.damping).rsqrt_())
    return out


def _lies_whole(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.dtype == torch.float32


def _normal(size: int, key: int) -> np.ndarray:
    """What ``normal_noise`` in models/noise.c draws, ``[size]``."""
    blocks = -(-size // (2 * HALF))
    counter = np.arange(1, blocks * HALF + 1, dtype=np.uint64)
    z = np.uint64(key % 2**64) + counter * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    z ^= z >> np.uint64(31)
    u = ((z >> np.uint64(40)) + np.uint64(1)).astype(np.float32) * np.float32(2.0**-24)
    v = (z & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)
    radius, angle = np.sqrt(-2.0 * np.log(u)), 2.0 * np.pi * v.astype(np.float64)
    pairs = np.stack([np.cos(angle), np.sin(angle)]) * radius
    blocked = pairs.reshape(2, blocks, HALF).swapaxes(0, 1)
    return blocked.reshape(-1)[:size].astype(np.float32)
