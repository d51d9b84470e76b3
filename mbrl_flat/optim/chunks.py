"""Arithmetic over long tensors in chunks that fit a cache."""

from collections.abc import Iterator

from torch import Tensor

CHUNK = 2**16
"""Entries of a piece: intermediate results of some operations stay in a CPU's second cache."""


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of tensors of one shape, piece by piece, to be changed in place.

    A formula of several operations over long tensors waits for the memory at each of them; in
    chunks it reads its operands once. On other devices than a CPU, and where the entries do not lie
    one after the other, the tensors come whole.

    Args:
        tensors: Any number of tensors of one shape.

    Yields:
        One view of each.
    """
    if any(t.device.type != "cpu" or not t.is_contiguous() for t in tensors):
        yield tensors
    else:
        yield from zip(*(t.detach().view(-1).split(CHUNK) for t in tensors), strict=True)
