"""What STORM and TWISTER make of a batch: latents of all images, then outputs of all tokens."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mbrl_flat.agents.image_latent import ImageSpec, LatentEncoder
from mbrl_flat.agents.token_dynamics import TokenDynamics
from mbrl_flat.data.batch import Batch
from mbrl_flat.models.categorical import straight_through
from mbrl_flat.models.kv_cache import KVCache


class Observed(NamedTuple):
    """B subsequences of T transitions as the model sees them."""

    posterior: Tensor
    """Log probabilities ``[B, T + 1, S, C]``."""
    latent: Tensor
    """Samples ``[B, T + 1, S C]``."""
    before: Tensor
    """Latents of the step before ``[B, T + 1, S C]``."""
    moves: Tensor
    """Actions of the step before ``[B, T + 1, A]``."""
    begins: Tensor
    """Where episodes, and subsequences, begin ``[B, T + 1]``."""
    hidden: Tensor
    """Outputs ``[B, T + 1, D]``."""
    cache: KVCache
    """Keys and values of all steps."""

    @property
    def features(self) -> Tensor:
        """Latents and outputs of the last T steps ``[B, T, S C + D]``."""
        return torch.cat([self.latent[:, 1:], self.hidden[:, 1:]], -1)


def observe_sequences(
    batch: Batch,
    noise: Tensor,
    *,
    image: ImageSpec,
    centre: float,
    encoder: LatentEncoder,
    dynamics: TokenDynamics,
) -> Observed:
    """Encode all images at once, sample their latents, and run the transformer over the tokens.

    Args:
        batch: Subsequences of T transitions.
        noise: Gumbel draws ``[B, T + 1, S, C]``.
        image: Which entry is the image.
        centre: What is taken off its pixels.
        encoder: From images to latents.
        dynamics: From tokens to outputs.

    Returns:
        All of it, with gradient.
    """
    rows, steps = noise.shape[:2]
    posterior = encoder(image.as_float(batch.obs, centre=centre)).unflatten(0, (rows, steps))
    latent = straight_through(posterior, noise).flatten(-2)
    is_first = batch.is_first
    if is_first is None:
        is_first = torch.zeros(rows, steps, dtype=torch.bool, device=noise.device)
    before, moves, begins = dynamics.previous(latent, batch.action, is_first)
    hidden, cache = dynamics.sequence(before, moves, dynamics.mask(begins))
    return Observed(posterior, latent, before, moves, begins, hidden, cache)


def reconstructed_images(batch: Batch, image: ImageSpec, *, centre: float) -> Tensor:
    """All images but the first of each subsequence, as floats ``[B T, C, H, W]``."""
    return image.as_float({image.name: batch.obs[image.name][:, 1:]}, centre=centre)


def image_error(decoder: nn.Module, latent: Tensor, images: Tensor) -> Tensor:
    """Squared error, summed over an image and averaged over images.

    Args:
        decoder: From latents ``[N, S C]`` to images.
        latent: ``[B, T, S C]``.
        images: ``[B T, C, H, W]``.

    Returns:
        A scalar.
    """
    shown = decoder(latent.flatten(0, 1)).float()
    return (shown - images).square().sum((1, 2, 3)).mean()


def decoded(decoder: nn.Module, latent: Tensor, *, centre: float) -> Tensor:
    """Expected images ``[..., C, H, W]`` in [0, 1] of latents ``[..., S C]``."""
    shown = decoder(latent.reshape(-1, latent.shape[-1])).float().add(centre).clamp(0.0, 1.0)
    return shown.unflatten(0, latent.shape[:-1])
