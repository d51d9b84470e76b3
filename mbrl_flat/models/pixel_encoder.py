"""TD-MPC2's encoder of images: four convolutions and SimNorm, no linear layer.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, and the official code at e9f5932:
    kernels 7, 5, 3, 3 with strides 2, 2, 2, 1 and 32 channels, ReLU in between, SimNorm on the
    flattened 32 x 4 x 4 features of a 64x64 image.

Deviations from the paper:
    The last convolution has as many channels as the latent size asks for, which the published one
    has only at a latent size of 512. Features are permuted so that the strided groups of this
    project's SimNorm are the published ones: neighbours within one channel.
"""

import torch
from torch import Tensor, nn

from mbrl_flat.errors import UserError
from mbrl_flat.models.activations import simnorm

_LAYERS = ((7, 2), (5, 2), (3, 2), (3, 1))


def output_side(side: int) -> int:
    """Height or width of the features of an image of ``side`` pixels; 0 if it is too small."""
    for kernel, stride in _LAYERS:
        side = (side - kernel) // stride + 1
        if side < 1:
            return 0
    return side


class PixelEncoder(nn.Module):
    """Maps images to latents that lie on simplices.

    Args:
        shape: Of an image ``[C, H, W]``.
        latent_dim: Size D of the latent.
        channels: Of the first three convolutions.
        simnorm_size: Members of a SimNorm group.

    Raises:
        UserError: If such images do not give features that make up such a latent.
    """

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, *, channels: int, simnorm_size: int
    ) -> None:
        super().__init__()
        cells = output_side(shape[1]) * output_side(shape[2])
        if cells == 0 or latent_dim % cells:
            raise UserError(
                f"The encoder cannot turn images of {shape[1]}x{shape[2]} pixels into a latent of "
                f"{latent_dim} features ({cells} positions are left after its convolutions); "
                f"enlarge them to 64x64 (env.size=64), which leaves 16, or take an agent that "
                f"encodes them at their own size: dreamerv3, storm or twister."
            )
        self.simnorm_size = simnorm_size
        widths = [shape[0], channels, channels, channels, latent_dim // cells]
        layers: list[nn.Module] = []
        for (kernel, stride), inputs, outputs in zip(_LAYERS, widths, widths[1:], strict=False):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        # Twice to three times as fast on a CPU as the default layout.
        nn.utils.convert_conv2d_weight_memory_format(self.layers, torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``[..., C, H, W]`` in [0, 255], uint8 or float, as ``[..., D]``."""
        lead = images.shape[:-3]
        dtype = next(self.parameters()).dtype
        flat = images.reshape(-1, *images.shape[-3:]).to(dtype, memory_format=torch.channels_last)
        features = self.layers(flat / 255.0 - 0.5).flatten(1)
        groups = features.unflatten(-1, (-1, self.simnorm_size))
        return simnorm(groups.mT.flatten(1), self.simnorm_size).view(*lead, -1)
