"""Encoder and decoder of DreamerV3: vectors in symlog space, images by convolutions, or both.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, and the
    official code (``Encoder`` and ``Decoder`` of ``rssm.py``).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.agents.dreamerv3.config import DreamerV3Config
from mbrl_flat.agents.dreamerv3.rssm import NORM
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Observation
from mbrl_flat.models.block_gru import BlockLinear
from mbrl_flat.models.conv import ConvDecoder, ConvEncoder, stages_for
from mbrl_flat.models.functional import full_precision, symexp, symlog
from mbrl_flat.models.perceptron import Perceptron
from mbrl_flat.specs import EnvSpec

MULTIPLIERS = (2, 3, 4, 4)
"""Channels after each halving of the image, in units of ``depth``; small images skip the first."""


def split_entries(spec: EnvSpec) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Sizes of the vector entries and shapes of the image entries of an observation.

    Args:
        spec: The environment's shapes.

    Returns:
        Both, by name.

    Raises:
        UserError: If an entry is neither a vector nor an image.
    """
    vectors = {name: shape[0] for name, shape in spec.obs.items() if len(shape) == 1}
    images = {name: shape for name, shape in spec.obs.items() if len(shape) == 3}
    other = spec.obs.keys() - vectors.keys() - images.keys()
    if other:
        name = min(other)
        raise UserError(
            f"dreamerv3 takes vectors and images (channels, height, width), but the observation "
            f"{name!r} has the shape {tuple(spec.obs[name])}."
        )
    return vectors, images


class Encoder(nn.Module):
    """Observations to one embedding.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``DreamerV3Config``.
    """

    def __init__(self, spec: EnvSpec, config: DreamerV3Config) -> None:
        super().__init__()
        dims = config.dims
        vectors, images = split_entries(spec)
        self.vectors, self.images = tuple(vectors), tuple(images)
        self.out_features = 0
        self.mlp = None
        if vectors:
            units = [dims["units"]] * 3
            self.mlp = Perceptron(sum(vectors.values()), units, None, norm=NORM)
            self.out_features += dims["units"]
        self.convs = nn.ModuleDict()
        for name, shape in images.items():
            stages = stages_for(shape, len(MULTIPLIERS))
            depths = [dims["depth"] * m for m in MULTIPLIERS[-stages:]]
            conv = ConvEncoder(shape[0], shape[1], depths)
            self.convs[name] = conv
            self.out_features += conv.out_features

    def forward(self, obs: Observation) -> Tensor:
        """Embed entries ``[..., n]`` and uint8 images ``[..., C, height, width]``: ``[..., E]``."""
        parts: list[Tensor] = []
        if self.mlp is not None:
            parts.append(self.mlp(torch.cat([symlog(obs[name]) for name in self.vectors], -1)))
        for name in self.images:
            image = as_unit_range(obs[name]) - 0.5
            lead = image.shape[:-3]
            parts.append(self.convs[name](image.flatten(0, -4)).view(*lead, -1))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


def as_unit_range(image: Tensor) -> Tensor:
    """Turn uint8 images into floats in [0, 1]; floats pass through."""
    return image.float() / 255.0 if image.dtype == torch.uint8 else image


class ImageHead(nn.Module):
    """A state to one image: both of its parts are mapped to the grid and added there.

    The large deterministic part is mapped block by block, each block to channels of its own.

    Args:
        deter_size: Size of the deterministic part.
        stoch_size: Size of the stochastic part.
        shape: ``(C, height, width)``.
        config: Sizes, coefficients and rates; see ``DreamerV3Config``.
    """

    def __init__(
        self, deter_size: int, stoch_size: int, shape: tuple[int, ...], config: DreamerV3Config
    ) -> None:
        super().__init__()
        dims = config.dims
        stages = stages_for(shape, len(MULTIPLIERS))
        depths = [dims["depth"] * m for m in reversed(MULTIPLIERS[-stages:])]
        self.deter_size, self.depth, self.blocks = deter_size, depths[0], config.blocks
        self.grid = shape[1] // 2**stages
        size = self.grid**2 * self.depth
        self.from_deter = BlockLinear(deter_size, size, config.blocks)
        self.from_stoch = Perceptron(stoch_size, [2 * dims["units"]], size, norm=NORM)
        self.norm = NORM(self.depth)
        self.convs = ConvDecoder(depths, shape[0])

    def forward(self, features: Tensor) -> Tensor:
        """Decode ``[N, D + S C]`` to ``[N, C, height, width]`` in [0, 1]."""
        deter, stoch = features[:, : self.deter_size], features[:, self.deter_size :]
        side = self.grid
        blocks = self.from_deter(deter).view(-1, self.blocks, side, side, self.depth // self.blocks)
        grid = blocks.permute(0, 2, 3, 1, 4).flatten(3)
        grid = grid + self.from_stoch(stoch).view(-1, side, side, self.depth)
        return self.convs(F.silu(self.norm(grid)).movedim(-1, 1))


class Decoder(nn.Module):
    """States to all entries of the observation.

    Args:
        deter_size: Size of the deterministic part.
        stoch_size: Size of the stochastic part.
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``DreamerV3Config``.
    """

    def __init__(
        self, deter_size: int, stoch_size: int, spec: EnvSpec, config: DreamerV3Config
    ) -> None:
        super().__init__()
        dims = config.dims
        self.vectors, images = split_entries(spec)
        self.mlp = None
        if self.vectors:
            units, size = [dims["units"]] * 3, sum(self.vectors.values())
            self.mlp = Perceptron(deter_size + stoch_size, units, size, norm=NORM)
        self.convs = nn.ModuleDict(
            {
                name: ImageHead(deter_size, stoch_size, shape, config)
                for name, shape in images.items()
            }
        )

    def _raw(self, features: Tensor) -> Observation:
        """Vectors in symlog space ``[..., n]``, images in [0, 1], from ``[..., F]``."""
        out: Observation = {}
        if self.mlp is not None:
            parts = self.mlp(features).split(list(self.vectors.values()), -1)
            out |= dict(zip(self.vectors, parts, strict=True))
        for name, head in self.convs.items():
            image = head(features.flatten(0, -2))
            out[name] = image.view(*features.shape[:-1], *image.shape[1:])
        return out

    def forward(self, features: Tensor) -> Observation:
        """Expected observations of features ``[..., F]``; images in [0, 1]."""
        raw = self._raw(features)
        return {k: symexp(v) if k in self.vectors else v for k, v in raw.items()}

    def losses(self, features: Tensor, obs: Observation) -> dict[str, Tensor]:
        """Squared errors summed over entries and pixels, each ``[B, T]``.

        Args:
            features: ``[B, T, F]``.
            obs: What was seen, ``[B, T, ...]``; vectors count in symlog space.

        Returns:
            One for each entry of the observation.
        """
        out = {}
        for name, predicted in self._raw(features).items():
            seen = obs[name]
            target = symlog(seen) if name in self.vectors else as_unit_range(seen)
            error = (full_precision(predicted) - target).square()
            out[name] = error.flatten(2).sum(-1)
        return out
