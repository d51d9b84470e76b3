"""The latent dynamics of STORM and TWISTER: a transformer over pairs of latent and action.

The token at step t is the latent and the action of step t - 1; its output ``h_t`` predicts the
latent at t. An episode begins with a learned token of its own: the most likely latent of a learned
output, and no action.

References:
    Zhang et al., "STORM", arXiv:2310.09615, Section 3.1; Burchi & Timofte, "TWISTER",
    arXiv:2503.04416, Section 3.1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mbrl_flat.agents.actors import into_box
from mbrl_flat.agents.image_latent import LatentShape
from mbrl_flat.models.categorical import straight_through, unimix
from mbrl_flat.models.functional import full_precision
from mbrl_flat.models.kv_cache import KVCache
from mbrl_flat.models.transformer import (
    CausalTransformer,
    LearnedPositions,
    TransformerConfig,
    causal_mask,
)


class TokenDynamics(nn.Module):
    """Mixer, transformer and prior.

    Args:
        shape: Of the latent.
        action_size: Size A of an action.
        config: Shape of the transformer.
        activation: Of the mixer.
        eps: Of the mixer's normalisations.
        mix: Share of the uniform distribution in the prior.
        positions: Learned positions, for a transformer without relative ones.
    """

    def __init__(
        self,
        shape: LatentShape,
        action_size: int,
        config: TransformerConfig,
        *,
        activation: Callable[[], nn.Module],
        eps: float,
        mix: float,
        positions: LearnedPositions | None = None,
    ) -> None:
        super().__init__()
        size = config.size
        self.shape, self.mix = shape, mix
        self.mixer = nn.Sequential(
            nn.Linear(shape.size + action_size, size, bias=False),
            nn.LayerNorm(size, eps=eps),
            activation(),
            nn.Linear(size, size, bias=False),
            nn.LayerNorm(size, eps=eps),
        )
        self.positions = positions
        self.transformer = CausalTransformer(config)
        self.prior_logits = nn.Linear(size, shape.size)
        self.first_output = nn.Parameter(torch.zeros(size))

    @property
    def left_context(self) -> int | None:
        """How far back each layer looks."""
        return self.transformer.config.left_context

    def prior(self, hidden: Tensor) -> Tensor:
        """Log probabilities ``[..., S, C]`` of the latent that goes with outputs ``[..., D]``."""
        logits = full_precision(self.prior_logits(hidden))
        return unimix(logits.unflatten(-1, self.shape), self.mix)

    def first_latent(self) -> Tensor:
        """The latent ``[S C]`` before the first of an episode, with gradient to what it is of."""
        return straight_through(self.prior(torch.tanh(self.first_output)), None).flatten(-2)

    def previous(
        self, latent: Tensor, action: Tensor, is_first: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shift latents and actions by a step, and put what begins an episode in its place.

        Args:
            latent: ``[B, T + 1, S C]``.
            action: ``[B, T, A]``.
            is_first: Where episodes begin, ``[B, T + 1]``; a subsequence begins like an episode.

        Returns:
            Latents ``[B, T + 1, S C]`` and actions ``[B, T + 1, A]`` of the step before, and where
            there was none ``[B, T + 1]``.
        """
        begins = is_first.clone()
        begins[:, 0] = True
        before = torch.cat([latent[:, :1], latent[:, :-1]], 1)
        before = torch.where(begins[..., None], self.first_latent(), before)
        moves = torch.cat([torch.zeros_like(action[:, :1]), action], 1)
        return before, moves.masked_fill(begins[..., None], 0.0), begins

    def sequence(self, latent: Tensor, action: Tensor, mask: Tensor) -> tuple[Tensor, KVCache]:
        """Process sequences of tokens.

        Args:
            latent: Latents of the step before each ``[B, T, S C]``.
            action: Likewise actions ``[B, T, A]``.
            mask: Who attends to whom ``[B, T, T]``.

        Returns:
            Outputs ``[B, T, D]``; keys and values.
        """
        tokens = self.mixer(torch.cat([latent, into_box(action)], -1))
        if self.positions is not None:
            tokens = self.positions(tokens, 0)
        return self.transformer(tokens, mask)

    def mask(self, begins: Tensor) -> Tensor:
        """Who attends to whom, ``[B, T, T]``, where episodes begin at ``[B, T]``."""
        return causal_mask(begins, self.left_context)

    def step(self, latent: Tensor, action: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
        """Process one token more: latents ``[N, S C]`` and actions ``[N, A]`` to ``[N, D]``."""
        token = self.mixer(torch.cat([latent, into_box(action)], -1))
        if self.positions is not None:
            token = self.positions(token[:, None], cache.filled)[:, 0]
        return self.transformer.step(token, cache)
