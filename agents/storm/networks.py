"""Networks of STORM's form: convolutions with BatchNorm, heads with ReLU, torch's own start."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from mbrl_flat.agents.image_latent import ImageSpec
from mbrl_flat.agents.storm.config import STORMConfig
from mbrl_flat.models.perceptron import Perceptron
from mbrl_flat.models.strided_conv import StridedDecoder, StridedEncoder


def _relu() -> nn.Module:
    """In place: normalisations don't keep their output."""
    return nn.ReLU(inplace=True)


def convolutions(image: ImageSpec, config: STORMConfig) -> StridedEncoder:
    """Build the convolutions of the encoder."""
    return StridedEncoder(
        image.channels,
        image.size,
        stages=image.stages,
        width=config.conv_width,
        norm=config.norm,
        activation=_relu,
    )


def deconvolutions(in_features: int, image: ImageSpec, config: STORMConfig) -> StridedDecoder:
    """Build the decoder."""
    return StridedDecoder(
        in_features,
        image.channels,
        image.size,
        stages=image.stages,
        width=config.conv_width,
        norm=config.norm,
        activation=_relu,
    )


def linear_default_(weight: Tensor) -> Tensor:
    """Fill as ``nn.Linear`` does: uniform in ``+-1 / sqrt(fan_in)``."""
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5.0))


def head(in_features: int, hidden: Sequence[int], out_features: int) -> Perceptron:
    """Build a perceptron."""
    return Perceptron(
        in_features,
        hidden,
        out_features,
        norm=nn.LayerNorm,
        activation=nn.ReLU,
        bias=False,
        init=linear_default_,
        out_init=linear_default_,
    )
