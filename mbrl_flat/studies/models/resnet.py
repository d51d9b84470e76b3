"""Residual networks for small images.

References:
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385,
    Section 4.2: three stages of 16, 32 and 64 channels, shortcuts without parameters (option A).
    Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146: activation before
    convolution, channels 16k, 32k and 64k, shortcuts of 1x1 convolutions.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.errors import UserError
from mbrl_flat.studies.models.normalisation import image_norm


class ResNet20(nn.Module):
    """ResNet of 6n + 2 layers; n = 3 gives ResNet-20.

    Args:
        in_channels: Channels of an image.
        out_features: Size of the last axis of the output, such as the number of classes.
        width: Channels of the first stage.
        blocks: n, blocks of a stage.
        norm: ``none``, ``batch`` or ``layer``.
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        width: int = 16,
        blocks: int = 3,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width]
        self.stem = nn.Sequential(_conv(in_channels, width), *image_norm(norm, width), nn.ReLU())
        layers = _stages(_Block, widths, blocks, norm)
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to ``[B, out_features]``."""
        return self.head(self.blocks(self.stem(x)).mean((-2, -1)))


class _Block(nn.Module):
    """Two convolutions with a shortcut that drops places and pads channels with zeros."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.first = nn.Sequential(_conv(n_in, n_out, stride), *image_norm(norm, n_out), nn.ReLU())
        self.second = nn.Sequential(_conv(n_out, n_out), *image_norm(norm, n_out))
        self.stride, self.padding = stride, n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[..., :: self.stride, :: self.stride]
        if self.padding:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.padding))
        return torch.relu(shortcut + self.second(self.first(x)))


class WideResNet(nn.Module):
    """WideResNet of ``depth`` layers with channels ``widening`` times those of a ResNet.

    Args:
        in_channels: Channels of an image.
        out_features: Size of the last axis of the output, such as the number of classes.
        depth: 6n + 4; 16 in WideResNet-16-4.
        widening: k; 4 in WideResNet-16-4.
        norm: ``none``, ``batch`` or ``layer``.

    Raises:
        UserError: If ``depth`` is not 6n + 4.
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        depth: int = 16,
        widening: int = 4,
        norm: str = "batch",
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"The depth of a WideResNet is 6n + 4, such as 16; got {depth}.")
        super().__init__()
        blocks = (depth - 4) // 6
        widths = [16, 16 * widening, 32 * widening, 64 * widening]
        self.stem = _conv(in_channels, widths[0])
        layers = _stages(_WideBlock, widths, blocks, norm)
        self.blocks = nn.Sequential(*layers, *image_norm(norm, widths[-1]), nn.ReLU())
        self.head = nn.Linear(widths[-1], out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, C, H, W]`` to ``[B, out_features]``."""
        return self.head(self.blocks(self.stem(x)).mean((-2, -1)))


class _WideBlock(nn.Module):
    """Normalise, activate, convolve, twice; a shortcut of 1x1 where the shape changes."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.enter = nn.Sequential(*image_norm(norm, n_in), nn.ReLU())
        self.inner = nn.Sequential(
            _conv(n_in, n_out, stride), *image_norm(norm, n_out), nn.ReLU(), _conv(n_out, n_out)
        )
        changes = n_in != n_out or stride != 1
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        shortcut = x if self.shortcut is None else self.shortcut(entered)
        return shortcut + self.inner(entered)


def _stages(
    block: Callable[..., nn.Module], widths: Sequence[int], count: int, norm: str
) -> list[nn.Module]:
    """``count`` blocks for each width after the first; all stages but the first halve the image."""
    layers: list[nn.Module] = []
    for stage, (n_in, n_out) in enumerate(pairwise(widths)):
        layers.append(block(n_in, n_out, stride=2 if stage else 1, norm=norm))
        layers += [block(n_out, n_out, stride=1, norm=norm) for _ in range(count - 1)]
    return layers


def _conv(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
