"""An ensemble is K networks side by side, any subset of which can be evaluated alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mbrl_flat.models import ensemble as ensemble_module
from mbrl_flat.models.ensemble import EnsembleLayerNorm, EnsembleLinear, EnsembleMLP

EXACT = {"rtol": 1e-11, "atol": 1e-13}


@pytest.fixture
def ensemble():
    """Three members in float64 none of whose parameters is at its start."""
    generator = torch.Generator().manual_seed(0)
    net = EnsembleMLP(3, 4, [8, 6], 5).double()
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.5 * noise)
    return net


def member(net, k, x):
    """One member's output by torch's own layers."""
    for linear, norm in zip(net.hidden, net.norms, strict=True):
        x = F.linear(x, linear.weight[k], linear.bias[k])
        x = F.mish(F.layer_norm(x, x.shape[-1:], norm.weight[k], norm.bias[k]))
    return F.linear(x, net.last.weight[k], net.last.bias[k])


@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 3, 4), (0, 4)])
def test_every_member_gives_what_its_own_network_gives(ensemble, shape):
    x = torch.randn(shape, dtype=torch.float64)

    y = ensemble(x)

    assert y.shape == (3, *shape[:-1], 5)
    for k in range(3):
        torch.testing.assert_close(y[k], member(ensemble, k, x), **EXACT)


@pytest.mark.parametrize("members", [[0], [2, 0], [1, 2], [2, 1, 0]])
def test_members_chosen_first_give_what_they_give_among_all(ensemble, members):
    x, index = torch.randn(7, 4, dtype=torch.float64), torch.tensor(members)

    torch.testing.assert_close(ensemble(x, index), ensemble(x)[index], **EXACT)


def test_members_that_are_not_chosen_get_no_gradient(ensemble):
    ensemble(torch.randn(7, 4, dtype=torch.float64), torch.tensor([2, 0])).square().sum().backward()

    for parameter in ensemble.parameters():
        assert not parameter.grad[1].any()
        assert parameter.grad[0].any()
        assert parameter.grad[2].any()


def test_gradients_are_those_of_separate_networks(ensemble):
    x = torch.randn(7, 4, dtype=torch.float64)
    parameters = list(ensemble.parameters())

    joint = torch.autograd.grad(ensemble(x).square().sum(), parameters)
    alone = torch.autograd.grad(
        sum(member(ensemble, k, x).square().sum() for k in range(3)), parameters
    )

    for a, b in zip(joint, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_dropout_is_drawn_anew_for_each_member():
    torch.manual_seed(0)
    net = EnsembleMLP(2, 4, [512, 8], 3, dropout=0.5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape[1:]).expand_as(parameter))
    x = torch.randn(1, 4)

    calm = net.eval()(x)
    y = net.train()(x)

    torch.testing.assert_close(calm[0], calm[1])
    assert not torch.allclose(y[0], y[1])
    assert not torch.allclose(y[0], calm[0])


def test_dropout_acts_on_the_first_hidden_layer_alone(monkeypatch):
    seen = []

    def record(p, shape, *, like, training, dim):
        seen.append((tuple(shape), p, training, dim))

    monkeypatch.setattr(ensemble_module, "dropout_mask", record)

    EnsembleMLP(2, 4, [16, 8], 3, dropout=0.5)(torch.randn(7, 4))

    assert seen == [((2, 7, 16), 0.5, True, 1)]


def test_members_start_apart_and_the_last_layer_at_zero():
    net = EnsembleMLP(3, 4, [8, 6], 5)

    assert not net(torch.randn(7, 4)).any()
    for linear in net.hidden:
        apart = (linear.weight[0] - linear.weight[1]).std()
        assert float((apart / linear.weight.std()).detach()) == pytest.approx(2.0**0.5, rel=0.5)


@pytest.mark.parametrize("init", ["truncated_normal", "kaiming_uniform"])
def test_hidden_layers_start_as_named(init):
    """Uniform within 1 / sqrt(fan in), as ``nn.Linear`` starts; or normal with 0.02."""
    torch.manual_seed(0)

    linear = EnsembleLinear(5, 100, 200, init=init)

    if init == "kaiming_uniform":
        assert linear.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)
        assert linear.weight.std().item() == pytest.approx(0.1 / 3.0**0.5, rel=0.02)
        assert linear.bias.abs().max().item() == pytest.approx(0.1, rel=0.02)
        torch.manual_seed(0)
        default = nn.Linear(100, 2000)
        assert default.weight.std().item() == pytest.approx(linear.weight.std().item(), rel=0.02)
    else:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.any()


def test_layer_norm_has_an_affine_map_for_each_member_and_mish_follows():
    norm = EnsembleLayerNorm(2, 6).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(2, 7, 6, dtype=torch.float64)

    y = norm(x)

    for k in range(2):
        expected = F.mish(F.layer_norm(x[k], (6,), norm.weight[k], norm.bias[k]))
        torch.testing.assert_close(y[k], expected, **EXACT)
