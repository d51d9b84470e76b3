"""Dropout whose cost is proportional to what is dropped."""

import math
from functools import partial

import torch
from torch import Tensor

from mbrl_flat.distributed.batch_shard import draw_shard


def dropout(x: Tensor, p: float, *, training: bool, dim: int = 0) -> Tensor:
    """Set each element to zero with probability ``p`` and scale the rest by ``1 / (1 - p)``.

    The gaps between dropped elements are geometric. Drawing the gaps takes about ``p`` random
    numbers an element, where a mask takes one each; the distribution is the same.

    Args:
        x: Input of any shape; every entry is treated alike.
        p: Probability, in [0, 1).
        training: Without training the input is returned as it is.
        dim: Where the rows of the batch run.

    Returns:
        Same shape as ``x``; draws from torch's global generator.
    """
    mask = dropout_mask(p, x.shape, like=x, training=training, dim=dim)
    return x if mask is None else x * mask


def dropout_mask(
    p: float, shape: tuple[int, ...], *, like: Tensor, training: bool, dim: int = 0
) -> Tensor | None:
    """What ``dropout`` multiplies with, ``[*shape]``; None where that is one everywhere."""
    if not training or p == 0.0:
        return None
    # A shard is a view of the whole draw; fused operators read masks row by row.
    return draw_shard(partial(_mask, p, like=like), shape, dim=dim).contiguous()


def _mask(p: float, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
    """Zeros and ``1 / (1 - p)``."""
    size = math.prod(shape)
    # Ten standard deviations more gaps than expected: the last one lies beyond the end.
    draws = int(size * p + 10.0 * math.sqrt(size * p) + 10.0)
    uniform = torch.rand(draws, device=like.device, dtype=torch.float32).clamp_min_(1e-38)
    gaps = torch.floor(torch.log(uniform) / math.log1p(-p)).long() + 1
    dropped = (torch.cumsum(gaps, 0) - 1).clamp_(max=size)
    keep = torch.full((size + 1,), 1.0 / (1.0 - p), device=like.device, dtype=like.dtype)
    keep[dropped] = 0.0
    return keep[:size].view(shape)
