"""Networks of the recipes: shapes, published sizes, normalisation, gradients everywhere."""

import pytest
import torch
from torch import nn

from mbrl_flat.errors import UserError
from mbrl_flat.optim.groups import module_groups, selected
from mbrl_flat.studies.models import (
    Perceptron,
    ResNet20,
    SmallCNN,
    VisionTransformer,
    WideResNet,
    normalised_weights,
)

NETWORKS = {
    "perceptron": lambda norm: Perceptron(64, (32, 32), 10, norm=norm),
    "cnn": lambda norm: SmallCNN(1, 8, 10, norm=norm),
    "resnet": lambda norm: ResNet20(1, 10, width=4, blocks=1, norm=norm),
    "wide": lambda norm: WideResNet(1, 10, depth=10, widening=1, norm=norm),
}


def size(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_have_their_shape_and_every_weight_a_gradient(name, norm):
    network = NETWORKS[name](norm)

    out = network(torch.rand(6, 1, 8, 8))
    out.square().sum().backward()

    assert out.shape == (6, 10)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("batch", nn.modules.batchnorm._NormBase), ("layer", (nn.LayerNorm, nn.GroupNorm))],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_normalisation_is_of_the_kind_that_was_asked_for(name, norm, kind):
    network = NETWORKS[name](norm)

    assert any(isinstance(layer, kind) for layer in network.modules())
    assert selected(module_groups({"": network}), ["norm"])
    plain = NETWORKS[name]("none")
    assert size(plain) < size(network)


def test_resnet_20_has_its_published_size():
    """0.27 M weights, arXiv:1512.03385, Table 6; shortcuts have none."""
    network = ResNet20(3, 10)

    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == 20
    assert size(network) == 269_722


def test_wide_resnet_16_4_has_its_published_size():
    """2.7 M weights, arXiv:1605.07146; three shortcuts of 1x1 beside the 16 layers."""
    network = WideResNet(3, 10)

    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) + 1 == 14
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3
    assert 2.7e6 < size(network) < 2.8e6


def test_a_vision_transformer_of_published_width_and_depth_has_vit_tiny_s_size():
    """5.7 M weights with 1000 outputs (DeiT, arXiv:2012.12877, Table 1)."""
    network = VisionTransformer(3, 224, 1000, patch_size=16, depth=12)

    assert 5.6e6 < size(network) < 5.8e6


def test_the_vision_transformer_sees_where_a_patch_is():
    torch.manual_seed(0)
    network = VisionTransformer(1, 8, 10, patch_size=4, width=24, depth=2)
    x = torch.rand(3, 1, 8, 8)

    swapped = torch.cat([x[..., 4:, :], x[..., :4, :]], -2)

    assert network(x).shape == (3, 10)
    assert not torch.allclose(network(x), network(swapped), atol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_a_perceptron_without_hidden_layers_is_linear(activation):
    network = Perceptron(3, (), 2, activation=activation).double()
    x = torch.rand(2, 4, 3, dtype=torch.float64)

    torch.testing.assert_close(
        network(x[0] + x[1]) + network(0.0 * x[0]), network(x[0]) + network(x[1])
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Perceptron(4, (4,), 2, norm="bach"), "'bach'.*'batch'"),
        (lambda: Perceptron(4, (4,), 2, activation="rely"), "'rely'.*'relu'"),
        (lambda: SmallCNN(1, 6, 2), "size 6 cannot be halved 2 times"),
        (lambda: WideResNet(1, 2, depth=20), "6n \\+ 4.*got 20"),
        (lambda: VisionTransformer(1, 9, 2, patch_size=2), "size 9"),
    ],
)
def test_what_cannot_be_built_gets_a_sentence(build, message):
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_normalised_weights_are_those_whose_scale_the_outputs_do_not_feel(norm):
    torch.manual_seed(0)
    network = Perceptron(64, (16, 16), 10, norm=norm).double()
    for layer in network:
        if isinstance(layer, nn.LayerNorm | nn.BatchNorm1d):
            layer.eps = 1e-30
    x = torch.rand(6, 64).double()
    before = network(x)

    ahead = normalised_weights(network)
    with torch.no_grad():
        torch._foreach_mul_(ahead or list(network.parameters())[:2], 3.0)

    assert len(ahead) == (0 if norm == "none" else 4)
    assert torch.allclose(network(x), before) == (norm != "none")
