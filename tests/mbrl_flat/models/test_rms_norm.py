"""RMSNorm against its equation, in every precision."""

import torch
from torch import nn
from torch.autograd import gradgradcheck

from mbrl_flat.models.norms import ChannelRMSNorm, RMSNorm
from mbrl_flat.optim.groups import module_groups


def test_values_are_those_of_the_equation():
    norm = RMSNorm(5, eps=1e-4).double()
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.add_(torch.randn(5, dtype=torch.float64))

    expected = x / (x.square().sum(-1, keepdim=True) / 5.0 + 1e-4).sqrt() * norm.weight

    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)


def test_it_can_be_differentiated_twice():
    norm = RMSNorm(3, eps=1e-2).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    assert gradgradcheck(norm, (x,))


def test_half_precision_is_normalised_in_full():
    norm = RMSNorm(64, eps=1e-4)
    x = (100.0 * torch.randn(2, 64)).bfloat16()

    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x), norm(x.float()).bfloat16())


def test_channels_are_normalised_pixel_by_pixel():
    norm = ChannelRMSNorm(4, eps=1e-4)
    x = torch.randn(2, 4, 3, 3)

    expected = x / (x.square().mean(1, keepdim=True) + 1e-4).sqrt()

    torch.testing.assert_close(norm(x), expected)


def test_its_scale_is_of_the_kind_norm():
    (group,) = module_groups({"layer": nn.Sequential(nn.Linear(2, 2), RMSNorm(2))})

    assert group["flat_kinds"] == ["weight", "bias", "norm"]
