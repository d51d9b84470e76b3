"""Convolutional encoder and decoder between square images and a small grid of features.

The grid has 4x4 cells for images of 64, 32, 16 or 8 pixels a side, and 5x5, 6x6 or 7x7 where the
side is 5, 6 or 7 times a power of two, such as the 10x10 cells of MinAtar.

Images are ``[N, C, height, width]`` in channels-last memory, which CPUs and tensor cores prefer.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, official
    code: 5x5 convolutions, max-pooling on the way down and nearest-neighbour upsampling on the way
    up, RMSNorm over channels, SiLU.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.errors import UserError
from mbrl_flat.models.norms import ChannelRMSNorm
from mbrl_flat.models.perceptron import fan_in_normal_

GRIDS = (4, 5, 6, 7)
"""Possible heights and widths of the grid."""


def stages_for(shape: Sequence[int], most: int) -> int:
    """Say how often an image must be halved to reach a grid; the grid is what then is left of it.

    Args:
        shape: ``(C, height, width)``.
        most: Halvings that the network has.

    Returns:
        At least one, at most ``most``.

    Raises:
        UserError: If the image cannot be brought to the grid.
    """
    stages = {grid * 2**n: n for grid in GRIDS for n in range(1, most + 1)}
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in stages:
        allowed = ", ".join(f"{side}x{side}" for side in sorted(stages))
        raise UserError(
            f"The encoder cannot take an image of shape {tuple(shape)}; it takes (channels, "
            f"height, width) of {allowed}. Set the environment's image size to one of these."
        )
    return stages[shape[1]]


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 5, padding=2)
    fan_in_normal_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    return conv


class ConvEncoder(nn.Module):
    """Images to flat features ``[N, grid * grid * depths[-1]]``.

    Args:
        channels: Channels C of the image.
        size: Its height and width.
        depths: Channels after each halving.
    """

    def __init__(self, channels: int, size: int, depths: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(i, o) for i, o in pairwise([channels, *depths]))
        self.norms = nn.ModuleList(ChannelRMSNorm(depth, eps=1e-4) for depth in depths)
        self.out_features = (size // 2 ** len(depths)) ** 2 * depths[-1]

    def forward(self, image: Tensor) -> Tensor:
        """Encode ``[N, C, height, width]`` in any range, such as [-0.5, 0.5]."""
        x = image.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.silu(norm(F.max_pool2d(conv(x), 2)))
        return x.movedim(1, -1).flatten(1)


class ConvDecoder(nn.Module):
    """Grids of features to images in [0, 1].

    Args:
        depths: Channels of the grid, then after each doubling but the last.
        channels: Channels C of the image.
    """

    def __init__(self, depths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(i, o) for i, o in pairwise(depths))
        self.norms = nn.ModuleList(ChannelRMSNorm(depth, eps=1e-4) for depth in depths[1:])
        self.last = _conv(depths[-1], channels)

    def forward(self, grid: Tensor) -> Tensor:
        """Decode ``[N, depths[0], grid, grid]`` to ``[N, C, height, width]``."""
        x = grid.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.silu(norm(conv(_double(x))))
        return torch.sigmoid(self.last(_double(x)))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
