"""What differs between the processes of one run: the rows of the batch.

A batch of B rows is split into equal parts, one for each process, in the order of the processes.
Means over rows become means of means. Whatever else a row takes part in goes through this file:

- random numbers that belong to rows are drawn for the whole batch, from streams that are the same
  in all processes, and each process keeps those of its rows;
- a statistic of all rows, such as a percentile, is computed on the rows of all processes;
- gradients are averaged, see ``mbrl_flat/optim/synchronization.py``.

So the number of processes changes rounding and nothing else. Where nothing is split, every
function here does what its single-process form does, bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import all_gather


@dataclass(frozen=True)
class Shard:
    """The rows of one process.

    Attributes:
        index: Which part, from 0.
        count: Number of parts.
    """

    index: int = 0
    count: int = 1


_shard = Shard()


def current_shard() -> Shard:
    """Which rows the running update has; all of them outside ``use_shard``."""
    return _shard


@contextmanager
def use_shard(shard: Shard) -> Iterator[None]:
    """Let the body work on a part of the batch."""
    global _shard  # noqa: PLW0603 - layers deep in a model have to know, as of a random stream
    before, _shard = _shard, shard
    try:
        yield
    finally:
        _shard = before


def draw_shard(
    draw: Callable[[tuple[int, ...]], Tensor], shape: Sequence[int], *, dim: int = 0
) -> Tensor:
    """Draw for all rows and keep those of this process.

    Args:
        draw: Makes a tensor of a shape, such as ``torch.rand``.
        shape: Wanted shape.
        dim: Where the rows run.

    Returns:
        A tensor of ``shape``.
    """
    shard = current_shard()
    if shard.count == 1:
        return draw(tuple(shape))
    own, whole = shape[dim], list(shape)
    whole[dim] = own * shard.count
    return draw(tuple(whole)).narrow(dim, shard.index * own, own)


def gather_shards(own: Tensor) -> Tensor:
    """Join the rows ``[b, ...]`` of all processes to ``[B, ...]``; without gradient."""
    shard = current_shard()
    if shard.count == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(shard.count)]
    all_gather(parts, own.detach().contiguous())
    return torch.cat(parts)
