"""Convolutions that halve an image down to a small square, and their mirror image.

Each stage is a 4x4 convolution of stride 2 without bias, a normalisation over channels and an
activation; channels double. Everything runs in the channels-last memory format, so that images
``[N, H, W, C]`` and feature maps flatten without a copy.

References:
    Zhang et al., "STORM", NeurIPS 2023, arXiv:2310.09615, Appendix B; Burchi & Timofte, "TWISTER",
    ICLR 2025, arXiv:2503.04416; both after Hafner et al., arXiv:2010.02193.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UnknownNameError, UserError

SMALLEST = 4
"""Least height and width of the last feature map; the greatest is below twice that."""

NormName = Literal["batch", "layer"]
"""Over batch and space, or over the channels of one pixel."""


def stages_for(shape: Sequence[int], *, where: str) -> int:
    """Count the halvings that an image takes.

    Args:
        shape: Channels, height and width.
        where: Name of the caller, for the message.

    Returns:
        How many, at least one.

    Raises:
        UserError: If the image is not square or doesn't halve down to a width of 4 to 7.
    """
    height, width = shape[-2], shape[-1]
    stages, last = 0, width
    while last >= 2 * SMALLEST and last % 2 == 0:
        stages, last = stages + 1, last // 2
    if height != width or stages == 0 or last >= 2 * SMALLEST:
        raise UserError(
            f"The encoder of {where} can't take images of {height} x {width} pixels; it takes "
            f"squares whose side is 4, 5, 6 or 7 times a power of two, such as 64, 48, 80 or 16."
        )
    return stages


def channels_last_(module: nn.Module) -> nn.Module:
    """Lay the weights of all convolutions out channels-last, in place."""
    for param in module.parameters():
        if param.ndim == 4:
            param.data = param.data.contiguous(memory_format=torch.channels_last)
    return module


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of ``[N, C, H, W]``."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[N, C, H, W]``; channels-last in, channels-last out."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norm_layer(name: NormName, channels: int) -> nn.Module:
    """Build a normalisation of feature maps.

    Args:
        name: ``batch`` or ``layer``.
        channels: Number of channels C of its input ``[N, C, H, W]``.

    Returns:
        The layer.

    Raises:
        UnknownNameError: If there is no such normalisation.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "layer":
        return ChannelLayerNorm(channels, eps=1e-3)
    raise UnknownNameError("norm", name, ["batch", "layer"])


class StridedEncoder(nn.Module):
    """From images to flat features.

    Args:
        in_channels: Channels of the image.
        size: Its height and width.
        stages: Number of halvings.
        width: Channels of the first stage.
        norm: Name of the normalisation layer, as ``norm_layer`` takes it.
        activation: Makes the activation.

    Attributes:
        out_features: Number of features.
    """

    def __init__(
        self,
        in_channels: int,
        size: int,
        *,
        stages: int,
        width: int,
        norm: NormName,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = [in_channels, *(width * 2**stage for stage in range(stages))]
        for before, after in pairwise(channels):
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=False))
            layers += [norm_layer(norm, after), activation()]
        self.layers = channels_last_(nn.Sequential(*layers))
        self.out_features = channels[-1] * (size // 2**stages) ** 2

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, out_features]``."""
        maps = self.layers(images.contiguous(memory_format=torch.channels_last))
        return maps.permute(0, 2, 3, 1).flatten(1)


class StridedDecoder(nn.Module):
    """From flat features to images: the stages of ``StridedEncoder`` backwards.

    Args:
        in_features: Size of the input.
        out_channels: Channels of the image.
        size: Its height and width.
        stages: Number of doublings.
        width: Channels of the last stage.
        norm: Name of the normalisation layer, as ``norm_layer`` takes it.
        activation: Makes the activation.
    """

    def __init__(
        self,
        in_features: int,
        out_channels: int,
        size: int,
        *,
        stages: int,
        width: int,
        norm: NormName,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        channels = [*(width * 2**stage for stage in reversed(range(stages))), out_channels]
        self.side = size // 2**stages
        self.project = nn.Linear(in_features, channels[0] * self.side**2, bias=False)
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [norm_layer(norm, before), activation()]
            last = len(layers) == 3 * stages - 1
            layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=last))
        self.layers = channels_last_(nn.Sequential(*layers))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``[N, in_features]`` to ``[N, C, H, W]``."""
        maps = self.project(features).unflatten(-1, (self.side, self.side, -1))
        return self.layers(maps.permute(0, 3, 1, 2))
