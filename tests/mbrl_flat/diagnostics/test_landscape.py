"""Slices of losses whose shape is known."""

import numpy as np
import pytest
import torch
from torch import nn

from mbrl_flat.diagnostics.landscape import (
    filter_direction,
    filter_norms,
    loss_slice,
    top_eigenvectors,
)
from mbrl_flat.diagnostics.landscape_probe import draw_slice
from mbrl_flat.diagnostics.sharpness import loss_regions
from mbrl_flat.diagnostics.vectors import split
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import ProbeLoss


def bowl(spectrum):
    diagonal = torch.tensor(spectrum, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(len(spectrum), dtype=torch.float64))
    return ProbeLoss(lambda: 0.5 * (diagonal * weight.square()).sum(), {"all": [weight]})


def test_along_eigenvectors_a_bowl_has_its_eigenvalues():
    """L = (a^2 lambda_1 + b^2 lambda_2) / 2."""
    found = loss_slice(
        bowl([0.5, 7.0, 1.0, 3.0]), directions="eigenvector", radius=2.0, points=5, seed=1
    )

    assert found.curvatures == (pytest.approx(7.0, rel=1e-6), pytest.approx(3.0, rel=1e-6))
    a, b = np.meshgrid(found.distances, found.distances, indexing="ij")
    np.testing.assert_allclose(found.losses, 3.5 * a**2 + 1.5 * b**2, rtol=1e-5, atol=1e-9)


def test_one_direction_gives_a_line():
    found = loss_slice(bowl([2.0, 1.0]), dimensions=1, directions="eigenvector", points=3)

    np.testing.assert_allclose(found.losses, [1.0, 0.0, 1.0], atol=1e-9)


def test_further_eigenvectors_are_orthogonal():
    (region,) = loss_regions(bowl([5.0, 5.0, 4.0, 1.0, -2.0]), per_module=False)

    vectors, values = top_eigenvectors(region, 3, generator=torch.Generator().manual_seed(0))

    basis = torch.stack(vectors)
    torch.testing.assert_close(
        basis @ basis.T, torch.eye(3, dtype=torch.float64), rtol=0.0, atol=1e-10
    )
    assert values == pytest.approx([5.0, 5.0, 4.0], rel=1e-6)


def test_filters_of_a_direction_have_the_norms_of_the_weights():
    torch.manual_seed(0)
    params = [torch.randn(3, 4), torch.randn(3), torch.randn(2, 3, 5, 5)]

    direction = filter_direction(params, torch.Generator().manual_seed(0))

    linear, bias, convolution = split(direction, params)
    torch.testing.assert_close(linear.norm(dim=1), params[0].norm(dim=1))
    torch.testing.assert_close(filter_norms(convolution), filter_norms(params[2]))
    assert torch.equal(bias, torch.zeros(3))
    assert torch.equal(filter_norms(params[1]), params[1].abs())


def test_the_centre_is_the_loss_and_the_weights_stay():
    net = nn.Linear(3, 2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before = net.weight.clone()

    found = loss_slice(
        ProbeLoss(lambda: net(x).square().mean(), {"net": list(net.parameters())}), points=3
    )

    assert found.losses.shape == (3, 3)
    assert found.losses[1, 1] == float(net(x).detach().square().mean())
    assert torch.equal(net.weight, before)


def test_the_same_seed_gives_the_same_slice():
    net = nn.Linear(2, 2)
    probed = ProbeLoss(lambda: net.weight.square().sum(), {"net": [net.weight]})

    first, again, other = (loss_slice(probed, points=3, seed=seed) for seed in (0, 0, 1))

    assert np.array_equal(first.losses, again.losses)
    assert not np.array_equal(first.losses, other.losses)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimensions": 3}, "dimensions must be 1 or 2, got 3"),
        ({"points": 4}, "points must be odd and at least 3, got 4"),
        ({"directions": "eigenvectr"}, "did you mean 'eigenvector'"),
    ],
)
def test_wrong_settings_of_a_slice_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        loss_slice(bowl([1.0, 2.0]), **settings)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_slices_can_be_drawn(tmp_path, dimensions):
    found = loss_slice(bowl([1.0, 2.0]), dimensions=dimensions, directions="eigenvector", points=5)

    path = draw_slice(found, tmp_path / "slice.png", title="A bowl")

    assert path.read_bytes()[:4] == b"\x89PNG"
