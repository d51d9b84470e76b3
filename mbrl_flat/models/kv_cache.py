"""Keys and values of what a causal transformer has already seen: a value, not hidden state.

A cache has *slots*, of which the first ``valid.shape[1]`` are filled; a row may have filled slots
that count for nothing (what came before its episode). Where there is *room*, a step writes into
the next slot in place and copies nothing; where there is none, the window slides by one slot into
a new cache.

References:
    Dai et al., "Transformer-XL", ACL 2019, arXiv:1901.02860, Section 3.2.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class KVCache(NamedTuple):
    """Cache of N rows; L layers, Hh heads of size D, S slots of which F are filled."""

    keys: tuple[Tensor, ...]
    """L tensors ``[N, Hh, S, D]``."""
    values: tuple[Tensor, ...]
    """L tensors ``[N, Hh, S, D]``."""
    valid: Tensor
    """Which filled slots may be attended to, bool ``[N, F]``."""

    @classmethod
    def empty(cls, num: int, shape: tuple[int, int, int, int], device: torch.device) -> Self:
        """Make a cache of filled slots that count for nothing.

        Args:
            num: Number of rows N, such as environments.
            shape: Layers, heads, slots and head size.
            device: Device of keys and values.

        Returns:
            Zeros; nothing valid.
        """
        layers, heads, slots, size = shape

        def zeros() -> tuple[Tensor, ...]:
            return tuple(torch.zeros(num, heads, slots, size, device=device) for _ in range(layers))

        return cls(zeros(), zeros(), torch.zeros(num, slots, dtype=torch.bool, device=device))

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """Read the tensors ``[N, ...]`` that ``to_state`` named."""
        layers = sum(name.startswith("key/") for name in state)
        return cls(
            tuple(state[f"key/{layer}"] for layer in range(layers)),
            tuple(state[f"value/{layer}"] for layer in range(layers)),
            state["valid"],
        )

    def to_state(self) -> dict[str, Tensor]:
        """Name the tensors: ``key/0``, ``value/0``, ... ``[N, Hh, S, D]``, ``valid`` ``[N, F]``."""
        named = {f"key/{layer}": key for layer, key in enumerate(self.keys)}
        named |= {f"value/{layer}": value for layer, value in enumerate(self.values)}
        return named | {"valid": self.valid}

    @property
    def filled(self) -> int:
        """Number of filled slots F."""
        return self.valid.shape[1]

    def keep(self, rows: Tensor) -> Self:
        """Forget everything in the rows that are false in ``rows`` ``[N]``; nothing is copied."""
        return self._replace(valid=self.valid & rows[:, None])

    def with_room(self, steps: int) -> Self:
        """Copy into a cache with room for ``steps`` more.

        Args:
            steps: Number of further steps that there has to be room for.

        Returns:
            The cache. Each one that comes of it may be continued once: two continuations would
            share slots.
        """

        def grown(old: Tensor) -> Tensor:
            num, heads, _, size = old.shape
            new = old.new_empty(num, heads, self.filled + steps, size)
            new[:, :, : self.filled] = old[:, :, : self.filled]
            return new

        return self._replace(
            keys=tuple(map(grown, self.keys)), values=tuple(map(grown, self.values))
        )

    def valid_after_step(self) -> Tensor:
        """Which slots may be attended to once one more is filled, ``[N, F + 1]``."""
        return torch.cat([self.valid, self.valid.new_ones(self.valid.shape[0], 1)], 1)

    def extended(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append to one layer.

        Args:
            layer: Index of the layer, from 0.
            key: ``[N, Hh, 1, D]``.
            value: ``[N, Hh, 1, D]``.

        Returns:
            Keys and values of at least ``F + 1`` slots; this cache's own memory if it had room.
        """
        keys, values, filled = self.keys[layer], self.values[layer], self.filled
        if keys.shape[2] > filled:
            keys[:, :, filled : filled + 1] = key
            values[:, :, filled : filled + 1] = value
            return keys, values
        return torch.cat([keys, key], 2), torch.cat([values, value], 2)

    def after_step(self, keys: list[Tensor], values: list[Tensor]) -> Self:
        """Make the next cache of what ``extended`` gave for each layer, ``[N, Hh, S, D]``."""
        valid = self.valid_after_step()
        if self.keys[0].shape[2] > self.filled:
            return type(self)(tuple(keys), tuple(values), valid)
        slid_keys, slid_values = (tuple(x[:, :, 1:] for x in kept) for kept in (keys, values))
        return type(self)(slid_keys, slid_values, valid[:, 1:])


def windows_of(sequence: Tensor, size: int) -> Tensor:
    """Show each step of a sequence together with those before it.

    Args:
        sequence: ``[B, Hh, T, D]``.
        size: Slots C that the cache remembers of each row.

    Returns:
        ``[B, T, Hh, C, D]``: the last slot of step t holds step t; before the sequence there are
        zeros. No copy beyond the padding: neighbouring windows share memory.
    """
    padded = torch.nn.functional.pad(sequence, (0, 0, size - 1, 0))
    return padded.unfold(2, size, 1).permute(0, 2, 1, 4, 3)


def valid_windows(is_first: Tensor, size: int) -> Tensor:
    """Say which slots of the windows of ``windows_of`` lie in the same episode and sequence.

    Args:
        is_first: Where episodes begin, bool ``[B, T]``.
        size: Slots C that the cache remembers of each row.

    Returns:
        Bool ``[B, T, C]``.
    """
    episode = is_first.long().cumsum(1)
    padded = torch.nn.functional.pad(episode, (size - 1, 0), value=-1)
    return padded.unfold(1, size, 1) == episode[..., None]
