"""A frozen encoder of random weights: one space for the errors of models with latents of their own.

What an agent's encoder makes of observations is learned, so an error measured there depends on what
it kept. Here the features of an observation are a fixed random function of it, the same for every
run, agent and time: no training can shrink them.

References:
    Burda et al., "Large-Scale Study of Curiosity-Driven Learning", ICLR 2019, arXiv:1808.04355
    (random features among those that predictions are judged in); Seo et al., "State Entropy
    Maximization with Random Encoders for Efficient Exploration", ICML 2021, arXiv:2102.09430.
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mbrl_flat.models.functional import symlog
from mbrl_flat.specs import TASK

_HIDDEN = 256
_WIDTHS = (16, 32, 64, 64)
_SMALLEST = 8
"""Images with a shorter side are not halved any further."""


class ReferenceEncoder:
    """Random features of each entry of an observation, side by side.

    A image ``[C, H, W]`` goes through up to four convolutions of stride 2 with ReLU, and a random
    projection; anything else through symlog, one layer of tanh units and a random projection.

    Args:
        features: Features of an entry.
        seed: Determines all weights, with the shape of the entry; not the seed of a run.
    """

    def __init__(self, *, features: int = 64, seed: int = 0) -> None:
        self.features, self.seed = features, seed

    @torch.no_grad()
    def __call__(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Encode.

        Args:
            obs: Entries ``[B, T, ...]``, images in uint8 or in [0, 1].

        Returns:
            ``[B, T, F]``, float32; the index of a task has no part in it.
        """
        entries = [value for name, value in obs.items() if name != TASK]
        return torch.cat(
            [self._entry(value).unflatten(0, value.shape[:2]) for value in entries], -1
        )

    def _entry(self, value: Tensor) -> Tensor:
        """Features ``[B T, F]`` of one entry ``[B, T, ...]``."""
        generator = torch.Generator().manual_seed(self.seed)
        rows = value.flatten(0, 1)
        if value.ndim == 5:
            pixels = rows.float() / 255.0 if rows.dtype == torch.uint8 else rows.float()
            hidden = self._convolved(pixels - 0.5, generator)
        else:
            hidden = symlog(rows.flatten(1).float())
            weight = _normal((_HIDDEN, hidden.shape[1]), generator, like=hidden)
            bias = torch.randn(_HIDDEN, generator=generator).to(hidden)
            hidden = torch.tanh(F.linear(hidden, weight, bias))
        return F.linear(hidden, _normal((self.features, hidden.shape[1]), generator, like=hidden))

    def _convolved(self, pixels: Tensor, generator: Generator) -> Tensor:
        for width in _WIDTHS:
            if min(pixels.shape[-2:]) < _SMALLEST:
                break
            kernel = _normal((width, pixels.shape[1], 4, 4), generator, like=pixels, gain=2.0)
            pixels = F.relu(F.conv2d(pixels, kernel, stride=2, padding=1))
        return pixels.flatten(1)


def _normal(
    shape: tuple[int, ...], generator: Generator, *, like: Tensor, gain: float = 1.0
) -> Tensor:
    """Gaussian weights ``[out, ...]`` of variance ``gain / fan_in``, drawn on the CPU."""
    fan_in = math.prod(shape[1:])
    return (torch.randn(shape, generator=generator) * math.sqrt(gain / fan_in)).to(like)
