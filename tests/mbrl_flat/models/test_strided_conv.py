"""Strided convolutions: shapes, memory format, and what they refuse."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mbrl_flat.errors import UserError
from mbrl_flat.models.strided_conv import (
    ChannelLayerNorm,
    StridedDecoder,
    StridedEncoder,
    norm_layer,
    stages_for,
)


@pytest.mark.parametrize(("size", "stages"), [(64, 4), (16, 2), (8, 1), (10, 1), (80, 4), (28, 2)])
def test_images_are_halved_until_four_to_seven_pixels_are_left(size, stages):
    assert stages_for((3, size, size), where="x") == stages
    assert 4 <= size // 2**stages < 8


@pytest.mark.parametrize("shape", [(3, 64, 32), (3, 84, 84), (3, 9, 9), (3, 4, 4)])
def test_other_images_are_refused_by_their_size(shape):
    with pytest.raises(UserError, match=f"{shape[1]} x {shape[2]} pixels"):
        stages_for(shape, where="x")


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("size", [16, 20])
def test_the_decoder_gives_images_of_the_size_that_the_encoder_took(norm, size):
    make = partial(dict, stages=2, width=4, norm=norm, activation=nn.SiLU)
    encoder = StridedEncoder(3, size, **make())
    decoder = StridedDecoder(11, 3, size, **make())

    features = encoder(torch.rand(5, 3, size, size))

    assert features.shape == (5, encoder.out_features)
    assert encoder.out_features == 8 * (size // 4) ** 2
    assert decoder(torch.rand(5, 11)).shape == (5, 3, size, size)


def test_channels_last_computes_what_channels_first_does():
    torch.manual_seed(0)
    encoder = StridedEncoder(3, 16, stages=2, width=4, norm="layer", activation=nn.ReLU).double()
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    x = images
    for conv, norm in (
        (encoder.layers[0], encoder.layers[1]),
        (encoder.layers[3], encoder.layers[4]),
    ):
        x = F.conv2d(x, conv.weight.contiguous(), stride=2, padding=1)
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        x = F.relu((x - mean) / (variance + norm.eps).sqrt())

    expected = x.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(encoder(images), expected, rtol=1e-12, atol=1e-12)


def test_no_copy_lies_between_convolutions_and_features():
    encoder = StridedEncoder(3, 16, stages=1, width=4, norm="batch", activation=nn.ReLU)

    maps = encoder.layers(torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last))

    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert maps.permute(0, 2, 3, 1).flatten(1).data_ptr() == maps.data_ptr()


def test_the_norm_of_a_pixel_is_over_its_channels():
    norm = ChannelLayerNorm(6, eps=0.0).double()
    out = norm(torch.rand(2, 6, 3, 3, dtype=torch.float64))

    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 3, dtype=torch.float64))
    torch.testing.assert_close(
        out.square().mean(1), torch.ones(2, 3, 3, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def test_an_unknown_norm_is_named():
    with pytest.raises(UserError, match="group"):
        norm_layer("group", 4)
