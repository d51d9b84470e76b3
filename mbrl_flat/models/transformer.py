r"""Causal transformer with limited left context, whole sequences at once or step by step.

Post-norm blocks: ``x <- LN(x + attention(x))``, ``x <- LN(x + feedforward(x))``. Positions enter
in one of two ways: as distances within the attention (Transformer-XL),

.. math::
    score_{ij} = \left[ (q_i + u)^T k_j + (q_i + v)^T W r_{i-j} \right] / \sqrt{D}

with sinusoids r and learned u, v, W; or as learned vectors added to the input
(``LearnedPositions``). Attention is written in elementary operations: it can be differentiated
twice, and a step with a cache computes what the whole sequence does.

References:
    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762; Dai et al.,
    "Transformer-XL", ACL 2019, arXiv:1901.02860, Section 3.3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.errors import UserError
from mbrl_flat.models.dropout import dropout
from mbrl_flat.models.kv_cache import KVCache
from mbrl_flat.settings import CheckedSettings, setting


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(CheckedSettings):
    """Shape of a causal transformer.

    Attributes:
        size: Features of a token.
        num_layers: Number of blocks, at least 1.
        num_heads: Heads; they divide ``size``.
        feedforward: Hidden features of the feed-forward part.
        dropout: Of attention weights and of both residual branches.
        left_context: How many tokens before itself each layer attends to; None: all.
        relative: Attend by distance; needs a ``left_context``.
        eps: Of the layer normalisations.
    """

    size: int = 512
    num_layers: int = 4
    num_heads: int = setting(8, "[1, inf)")
    feedforward: int = 1024
    dropout: float = setting(0.1, "[0, 1)")
    left_context: int | None = setting(8, "[0, inf)")
    relative: bool = True
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % self.num_heads:
            raise UserError(
                f"A transformer of size {self.size} can't have {self.num_heads} heads; "
                f"choose a number of heads that divides the size."
            )
        if self.relative and self.left_context is None:
            raise UserError("Relative positions need a left_context, the longest distance.")
        if self.relative and self.size % 2:
            raise UserError(f"Relative positions need an even size, got {self.size}.")


def causal_mask(is_first: Tensor, left_context: int | None = None) -> Tensor:
    """Say which tokens a token may attend to: itself and earlier ones of its own episode.

    Args:
        is_first: Where episodes begin, bool ``[B, T]``.
        left_context: How far back; None: to the beginning.

    Returns:
        Bool ``[B, T, T]``; ``[b, i, j]`` says whether i attends to j.
    """
    episode = is_first.long().cumsum(1)
    step = torch.arange(is_first.shape[1], device=is_first.device)
    distance = step[:, None] - step
    seen = distance >= 0
    if left_context is not None:
        seen &= distance <= left_context
    return seen & (episode[:, :, None] == episode[:, None, :])


def sinusoids(num: int, size: int) -> Tensor:
    """Sines and cosines of distances 0..num-1, ``[num, size]``, wavelengths 2 pi to 20000 pi."""
    frequency = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.arange(num, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1).float()


class RelativePositions(nn.Module):
    """Scores of queries for distances: ``(q_i + v)^T W r_d``.

    Args:
        config: Width, heads, layers and memory of the transformer.
    """

    sinusoids: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.left_context is not None
        self.num_heads = config.num_heads
        self.furthest = config.left_context
        self.project = nn.Linear(config.size, config.size, bias=False)
        head = (config.num_heads, 1, config.size // config.num_heads)
        self.content_bias = nn.Parameter(torch.zeros(head))
        self.position_bias = nn.Parameter(torch.zeros(head))
        table = sinusoids(self.furthest + 1, config.size)
        self.register_buffer("sinusoids", table, persistent=False)

    def forward(self, query: Tensor, num_keys: int) -> Tensor:
        """Score queries by how far the keys lie back.

        Args:
            query: ``[B, Hh, T, D]``, the last T of S positions.
            num_keys: Number of keys S.

        Returns:
            ``[B, Hh, T, S]``. Keys beyond the left context get the score of the furthest distance;
            the mask excludes them.
        """
        embedded = self.project(self.sinusoids).unflatten(-1, (self.num_heads, -1))
        moved = (query + self.position_bias).transpose(0, 1)
        scores = moved.flatten(1, 2) @ embedded.permute(1, 2, 0)
        by_distance = scores.unflatten(1, moved.shape[1:3]).transpose(0, 1)
        length = query.shape[2]
        position = torch.arange(num_keys, device=query.device)
        distance = (position[num_keys - length :, None] - position).clamp(0, self.furthest)
        return by_distance.gather(-1, distance.expand(*query.shape[:2], length, num_keys))


class Attention(nn.Module):
    """Multi-head self-attention without biases in its linear maps.

    Args:
        config: Width, heads, layers and memory of the transformer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.project_in = nn.Linear(config.size, 3 * config.size, bias=False)
        self.project_out = nn.Linear(config.size, config.size, bias=False)
        self.positions = RelativePositions(config) if config.relative else None

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ``[B, Hh, T, D]``, of tokens ``[B, T, size]``."""
        split = self.project_in(x).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        return query, key, value

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            query: ``[B, Hh, T, D]``, the last T of the S positions.
            key: ``[B, Hh, S, D]``.
            value: ``[B, Hh, S, D]``.
            mask: Bool ``[B, T, S]``.

        Returns:
            ``[B, T, size]``.
        """
        scaled = query * query.shape[-1] ** -0.5
        if self.positions is None:
            score = scaled @ key.mT
        else:
            scale = query.shape[-1] ** -0.5
            content = scaled + self.positions.content_bias * scale
            score = content @ key.mT + self.positions(query, key.shape[2]) * scale
        weight = score.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        weight = dropout(weight, self.dropout, training=self.training)
        weight = weight.to(value.dtype)
        one = query.shape[2] == 1  # then a product of matrices for each row and head is slow
        mixed = (weight.mT * value).sum(2, keepdim=True) if one else weight @ value
        return self.project_out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward part, each with residual and LayerNorm after it.

    Args:
        config: Width, heads, layers and memory of the transformer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.size, eps=config.eps)
        self.expand = nn.Linear(config.size, config.feedforward)
        self.contract = nn.Linear(config.feedforward, config.size)
        self.feedforward_norm = nn.LayerNorm(config.size, eps=config.eps)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """Finish the block for tokens and what attention made of them, both ``[B, T, size]``."""
        x = self.attention_norm(x + dropout(attended, self.dropout, training=self.training))
        hidden = self.contract(F.relu(self.expand(x)))
        return self.feedforward_norm(x + dropout(hidden, self.dropout, training=self.training))


class CausalTransformer(nn.Module):
    """A stack of blocks.

    Args:
        config: Width, heads, layers and memory of the transformer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, KVCache]:
        """Map whole sequences.

        Args:
            x: Tokens ``[B, T, size]``.
            mask: Who attends to whom, bool ``[B, T, T]``.

        Returns:
            Outputs ``[B, T, size]``, and keys and values of all T tokens; the cache's ``valid``
            is what the last token attends to.
        """
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for block in self.blocks:
            assert isinstance(block, Block)
            query, key, value = block.attention.heads(x)
            x = block(x, block.attention(query, key, value, mask))
            keys.append(key)
            values.append(value)
        return x, KVCache(tuple(keys), tuple(values), mask[:, -1])

    def step(self, x: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
        """Take in one token more.

        Args:
            x: Tokens of this step, ``[N, size]``.
            cache: What came before; a cache with room is continued in place.

        Returns:
            Outputs ``[N, size]`` and the cache that has the token.
        """
        context, end = self.config.left_context, cache.filled + 1
        begin = 0 if context is None else max(end - context - 1, 0)
        mask = cache.valid_after_step()[:, None, begin:]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        x = x[:, None]
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            query, key, value = block.attention.heads(x)
            key, value = cache.extended(layer, key, value)
            seen = slice(begin, end)
            x = block(x, block.attention(query, key[:, :, seen], value[:, :, seen], mask))
            keys.append(key)
            values.append(value)
        return x[:, 0], cache.after_step(keys, values)


class LearnedPositions(nn.Module):
    """Adds a learned vector for each position, then LayerNorm.

    Args:
        size: Features of a token.
        max_length: Number of positions.
        eps: Of the normalisation.
    """

    def __init__(self, size: int, max_length: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(max_length, size))
        nn.init.normal_(self.vectors)
        self.norm = nn.LayerNorm(size, eps=eps)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Map tokens to tokens with positions.

        Args:
            x: ``[B, T, size]``.
            first: Position of the first.

        Returns:
            ``[B, T, size]``.

        Raises:
            UserError: If there are fewer positions than that takes.
        """
        if first + x.shape[1] > len(self.vectors):
            raise UserError(
                f"The transformer has {len(self.vectors)} learned positions, and this sequence "
                f"ends at position {first + x.shape[1]}; shorten the context or the horizon."
            )
        return self.norm(x + self.vectors[first : first + x.shape[1]])
