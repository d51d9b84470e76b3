"""A small U-Net that predicts the noise in images.

Two resolutions, residual blocks with GroupNorm and SiLU, the time added as a sinusoidal embedding
in every block, as in the published architecture; without self-attention, which at 8 or 14 pixels
a side adds little.

References:
    Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, Appendix B.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbrl_flat.errors import UserError


class UNet(nn.Module):
    """Predicts noise ``[N, C, S, S]`` from noisy images and integer times ``[N]``.

    Args:
        channels: Image channels C.
        width: Channels at full resolution; twice as many at half of it.
        image_size: Pixels a side S, even.

    Raises:
        UserError: If the size is odd.
    """

    def __init__(self, *, channels: int = 1, width: int = 32, image_size: int = 8) -> None:
        super().__init__()
        if image_size % 2:
            raise UserError(f"The U-Net halves its images: the size must be even, got {image_size}")
        self.width = width
        time_size = 4 * width
        self.time = nn.Sequential(
            nn.Linear(width, time_size), nn.SiLU(), nn.Linear(time_size, time_size)
        )
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.down1 = _Block(width, width, time_size)
        self.shrink = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.down2 = _Block(2 * width, 2 * width, time_size)
        self.middle = _Block(2 * width, 2 * width, time_size)
        self.up2 = _Block(4 * width, 2 * width, time_size)
        self.grow = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.up1 = _Block(2 * width, width, time_size)
        self.leave = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)
        )

    def forward(self, images: Tensor, time: Tensor) -> Tensor:
        """Predict the noise."""
        stamp = self.time(sinusoidal(time, self.width))
        fine = self.down1(self.enter(images), stamp)
        coarse = self.down2(self.shrink(fine), stamp)
        x = self.middle(coarse, stamp)
        x = self.up2(torch.cat([x, coarse], 1), stamp)
        x = self.up1(torch.cat([self.grow(x), fine], 1), stamp)
        return self.leave(x)


def sinusoidal(time: Tensor, size: int) -> Tensor:
    """Embed integer times ``[N]`` as sines and cosines of geometric frequencies ``[N, size]``."""
    half = size // 2
    rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=time.device) / half)
    angles = time.unsqueeze(1).float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class _Block(nn.Module):
    """Two convolutions with a residual connection; the time is added between them."""

    def __init__(self, inputs: int, outputs: int, time_size: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.stamp = nn.Linear(time_size, outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, stamp: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.stamp(stamp)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))
