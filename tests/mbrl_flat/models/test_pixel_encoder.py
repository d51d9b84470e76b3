"""TD-MPC2's encoder of images."""

import pytest
import torch
from torch.nn import functional as F

from mbrl_flat.errors import UserError
from mbrl_flat.models.pixel_encoder import PixelEncoder, output_side


@pytest.fixture
def published():
    torch.manual_seed(0)
    return PixelEncoder((9, 64, 64), 512, channels=32, simnorm_size=8).double()


def test_the_features_are_the_published_ones_up_to_the_permutation_of_simnorm(published):
    x = torch.randint(256, (3, 9, 64, 64), dtype=torch.uint8)
    y = x.double() / 255 - 0.5
    convs = [layer for layer in published.layers if isinstance(layer, torch.nn.Conv2d)]
    for conv, stride in zip(convs[:3], (2, 2, 2), strict=True):
        y = F.relu(F.conv2d(y, conv.weight, conv.bias, stride=stride))
    y = F.conv2d(y, convs[3].weight, convs[3].bias)
    # The official SimNorm: neighbours of the flattened features form a group.
    theirs = y.flatten(1).view(3, 64, 8).softmax(-1)

    ours = published(x).view(3, 8, 64)

    torch.testing.assert_close(ours.mT, theirs, rtol=1e-12, atol=1e-12)


def test_the_published_sizes_are_those_of_the_paper(published):
    kernels = [tuple(p.shape) for p in published.parameters() if p.ndim == 4]
    assert kernels == [(32, 9, 7, 7), (32, 32, 5, 5), (32, 32, 3, 3), (32, 32, 3, 3)]
    assert output_side(64) == 4


def test_leading_axes_are_kept_and_images_may_be_uint8_or_float(published):
    x = torch.randint(256, (2, 3, 9, 64, 64), dtype=torch.uint8)
    together = published(x)
    assert together.shape == (2, 3, 512)
    torch.testing.assert_close(together[1, 2], published(x[1, 2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(together, published(x.double()), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "latent"), [(16, 512), (30, 512), (84, 512), (64, 120)])
def test_an_image_size_that_the_encoder_cannot_take_is_refused(size, latent):
    with pytest.raises(UserError, match=rf"images of {size}x{size}.*env\.size=64.*dreamerv3"):
        PixelEncoder((9, size, size), latent, channels=32, simnorm_size=8)
