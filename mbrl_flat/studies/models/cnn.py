"""A small convolutional network."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.studies.models.normalisation import activation_layer, image_norm


class SmallCNN(nn.Sequential):
    """Blocks of 3x3 convolution, normalisation, activation and 2x2 average pooling; then linear.

    Inputs are ``[B, C, H, W]``, outputs ``[B, out_features]``.

    Args:
        in_channels: Channels C of the images ``[N, C, H, W]``.
        image_size: H = W; divisible by 2 for each block.
        out_features: Size of the last axis of the output, such as the number of classes.
        channels: Of each block.
        norm: ``none``, ``batch`` or ``layer``.
        activation: ``relu``, ``tanh`` or ``gelu``.

    Raises:
        UserError: If the image is too small for so many blocks.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        out_features: int,
        *,
        channels: Sequence[int] = (16, 32),
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        if image_size % 2 ** len(channels):
            raise UserError(
                f"An image of size {image_size} cannot be halved {len(channels)} times; "
                f"give fewer channels."
            )
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([in_channels, *channels]):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), *image_norm(norm, n_out)]
            layers += [activation_layer(activation), nn.AvgPool2d(2)]
        side = image_size // 2 ** len(channels)
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels[-1] * side * side, out_features))
