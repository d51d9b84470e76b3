"""Forgetting and replay in the tractable geometry."""

import pytest
import torch

from mbrl_flat.data.hopfield_energy import attention, retrieve
from mbrl_flat.errors import UserError
from mbrl_flat.studies.hopfield.forgetting import (
    cluster_with_outlier,
    forgetting,
    random_rotations,
    replay_gain,
)

BETA = 8.0


@pytest.fixture(scope="module")
def patterns():
    return cluster_with_outlier(num_cluster=12, size=50, overlap=0.35)


def turned(patterns, strength, num=300):
    generator = torch.Generator().manual_seed(0)
    rotations = random_rotations(num, 50, strength=strength, generator=generator)
    return forgetting(patterns, rotations, beta=BETA)


def test_the_patterns_have_the_inner_products_asked_for(patterns):
    gram = patterns @ patterns.mT
    expected = torch.full((13, 13), 0.35, dtype=torch.float64)
    expected[-1], expected[:, -1] = 0.0, 0.0
    expected.fill_diagonal_(1.0)

    torch.testing.assert_close(gram, expected, rtol=0.0, atol=1e-14)


def test_rotations_are_orthogonal_with_determinant_one():
    generator = torch.Generator().manual_seed(3)
    rotations = random_rotations(5, 20, strength=0.3, generator=generator)

    identity = torch.eye(20, dtype=torch.float64).expand(5, -1, -1)
    torch.testing.assert_close(rotations @ rotations.mT, identity, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("strength", [0.02, 0.2])
def test_the_gain_of_replay_follows_the_identity_to_rounding(patterns, strength):
    found = turned(patterns, strength, num=20)
    share = attention(retrieve(patterns, patterns, beta=BETA), patterns, beta=BETA)

    predicted = replay_gain(share.mT, found.rise.unsqueeze(1), beta=BETA)

    torch.testing.assert_close(found.gain, predicted, rtol=0.0, atol=1e-12)


def test_without_rotation_nothing_is_forgotten_and_nothing_gained_beyond_duplication(patterns):
    still = torch.eye(50, dtype=torch.float64).unsqueeze(0)

    found = forgetting(patterns, still, beta=BETA)

    assert found.rise.abs().max() < 1e-13
    assert found.corrected.abs().max() < 1e-13
    assert found.gain.max() > 0.05


@pytest.mark.parametrize("strength", [0.02, 0.05])
def test_the_outlier_is_forgotten_most_and_gains_most_on_average(patterns, strength):
    found = turned(patterns, strength)
    rise, gain = found.rise.mean(0), found.corrected.mean(0)
    cluster = torch.arange(12)
    within = gain[:12, :12][~torch.eye(12, dtype=torch.bool)].mean()

    assert rise[12] > rise[:12].mean()
    assert gain[12, 12] > gain[cluster, cluster].mean() > within
    assert within > gain[12, :12].mean() > gain[:12, 12].mean() > 0.0


def test_geometries_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="need at least 14 dimensions"):
        cluster_with_outlier(num_cluster=12, size=13, overlap=0.3)
    with pytest.raises(UserError, match="overlap must lie in"):
        cluster_with_outlier(num_cluster=2, size=13, overlap=1.0)
