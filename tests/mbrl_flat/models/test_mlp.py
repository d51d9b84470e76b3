"""The multi-layer perceptron against torch's own layers, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mbrl_flat.models.activations import simnorm
from mbrl_flat.models.mlp import MLP, NormedLinear, truncated_normal_

EXACT = {"rtol": 1e-11, "atol": 1e-13}


def randomized(module, seed=0):
    """Give every parameter a value that is not its start."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.5 * noise)
    return module


def test_hidden_layers_are_linear_layernorm_mish_and_the_last_is_linear():
    net = randomized(MLP(3, [8, 8], 5))
    x = torch.randn(4, 3, dtype=torch.float64)

    y = net(x)

    for layer in list(net)[:2]:
        x = F.mish(F.layer_norm(layer.linear(x), (8,), layer.norm.weight, layer.norm.bias))
    torch.testing.assert_close(y, F.linear(x, net[2].weight, net[2].bias), **EXACT)


def test_a_simnorm_network_normalises_its_last_layer():
    net = randomized(MLP(3, [8], 6, simnorm_size=3))
    x = torch.randn(4, 3, dtype=torch.float64)

    y = net(x)

    hidden = net[0](x)
    last = F.layer_norm(net[1].linear(hidden), (6,), net[1].norm.weight, net[1].norm.bias)
    torch.testing.assert_close(y, simnorm(last, 3), **EXACT)


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 5), (4, 2)), ((4, 1, 5), (4, 7, 2)), ((4, 7, 5), (4, 7, 2)), ((5,), (2,))],
)
@pytest.mark.parametrize("simnorm_size", [None, 3])
def test_a_pair_gives_what_its_concatenation_gives(left, right, simnorm_size):
    net = randomized(MLP(7, [8, 8], 6, simnorm_size=simnorm_size))
    left = torch.randn(left, dtype=torch.float64)
    right = torch.randn(right, dtype=torch.float64)

    y = net.forward_pair(left, right)

    shape = torch.broadcast_shapes(left.shape[:-1], right.shape[:-1])
    joined = torch.cat([left.expand(*shape, 5), right.expand(*shape, 2)], -1)
    torch.testing.assert_close(y, net(joined), **EXACT)


def test_a_pairs_gradients_are_those_of_its_concatenation():
    net = randomized(MLP(7, [8, 8], 6))
    left = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    right = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    wanted = [left, right, *net.parameters()]

    pair = torch.autograd.grad(net.forward_pair(left, right).square().sum(), wanted)
    joined = torch.autograd.grad(net(torch.cat([left, right], -1)).square().sum(), wanted)

    for a, b in zip(pair, joined, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_weights_start_from_a_narrow_normal_and_biases_at_zero():
    torch.manual_seed(0)
    net = MLP(200, [300, 300], 50)

    for linear in (net[0].linear, net[1].linear, net[2]):
        assert linear.weight.mean().item() == pytest.approx(0.0, abs=1e-3)
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert not linear.bias.any()
    for layer in (net[0], net[1]):
        assert (layer.norm.weight == 1).all()
        assert not layer.norm.bias.any()


def test_a_last_layer_that_starts_at_zero_gives_zeros():
    net = MLP(3, [8], 5, zero_last=True)

    assert not net(torch.randn(4, 3)).any()


def test_a_truncated_normal_is_drawn_in_place_without_a_gradient():
    weight = nn.Parameter(torch.zeros(200, 200))

    assert truncated_normal_(weight, std=0.5) is weight
    assert weight.grad_fn is None
    assert weight.std().item() == pytest.approx(0.5, rel=0.03)


def test_dropout_acts_on_the_first_hidden_layer_in_training_only():
    torch.manual_seed(0)
    net = MLP(3, [64, 64], 5, dropout=0.5)
    x = torch.randn(4, 3)

    assert [layer.dropout for layer in net if isinstance(layer, NormedLinear)] == [0.5, 0.0]
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_dropout_comes_before_the_normalisation():
    """With a share p of ones kept, LayerNorm maps kept ones to sqrt((1 - p) / p) and dropped
    ones to minus its inverse, whatever dropout scales them by."""
    torch.manual_seed(0)
    layer = NormedLinear(3, 16, dropout=0.5).double().train()
    x = torch.ones(1, 16, dtype=torch.float64)

    y = layer.activate(x).flatten()

    p = (y > 0).double().mean()
    kept, dropped = ((1 - p) / p).sqrt(), -(p / (1 - p)).sqrt()
    torch.testing.assert_close(y, F.mish(torch.where(y > 0, kept, dropped)), rtol=1e-4, atol=0.0)
