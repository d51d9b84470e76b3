"""The contrastive loss on cases with a known answer, and the crops that it compares."""

import math

import pytest
import torch
from torch.nn import functional as F

from mbrl_flat.agents.twister.contrastive import ContrastivePredictor, horizon_weights, info_nce
from mbrl_flat.agents.twister.views import random_boxes, resized_crops


def test_without_any_knowledge_the_loss_is_the_log_of_the_number_of_keys():
    query, key = torch.zeros(7, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)

    torch.testing.assert_close(info_nce(query, key), torch.full((7,), math.log(7.0)))


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_orthogonal_keys_of_known_length_give_the_closed_form(strength):
    """Scores are s on the diagonal and 0 elsewhere: log(1 + (M - 1) exp(-s))."""
    key = torch.eye(5, 8, dtype=torch.float64)

    loss = info_nce(strength * key, key)

    expected = math.log1p(4.0 * math.exp(-strength))
    torch.testing.assert_close(loss, torch.full((5,), expected), rtol=1e-6, atol=0.0)


def test_the_diagonal_is_what_counts_and_not_the_best():
    key = torch.eye(4, dtype=torch.float64)

    wrong = info_nce(9.0 * key.roll(1, 0), key)

    expected = 9.0 + math.log(1.0 + 3.0 * math.exp(-9.0))
    torch.testing.assert_close(wrong, torch.full((4,), expected), rtol=1e-6, atol=0.0)


def test_weights_fall_by_three_quarters_and_sum_to_one():
    weights = horizon_weights(10, 0.75)

    assert sum(weights) == pytest.approx(1.0)
    assert weights[3] / weights[2] == pytest.approx(0.75)
    assert weights[0] == pytest.approx(0.25 / (1.0 - 0.75**10))


def predictor(steps=3):
    torch.manual_seed(0)
    return ContrastivePredictor(6, 5, 2, hidden=8, steps=steps, decay=0.75).double()


def sequence(size, num=2, length=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, length, size, generator=generator, dtype=torch.float64)


def test_the_loss_is_what_loops_over_pairs_give():
    """Each horizon alone, each pair alone, the second row in two episodes."""
    model = predictor()
    features, views, action = sequence(6), sequence(5, seed=1), sequence(2, length=4, seed=2)
    episode = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1]])

    loss, parts = model(features, views, action, episode)

    expected = []
    for k in range(3):
        keys = [model.keys[k](views[b, t + k]) for b in range(2) for t in range(5 - k)]
        each = []
        for b in range(2):
            for t in range(5 - k):
                if episode[b, t] != episode[b, t + k]:
                    continue
                query = model.queries[k](torch.cat([features[b, t], action[b, t : t + k].ravel()]))
                scores = torch.stack([query @ key for key in keys])
                own = b * (5 - k) + t
                each.append(scores.logsumexp(0) - scores[own])
        expected.append(torch.stack(each).mean())
    torch.testing.assert_close(parts.double(), torch.stack(expected), rtol=1e-5, atol=1e-6)
    total = sum(w * e for w, e in zip(horizon_weights(3, 0.75), expected, strict=True))
    torch.testing.assert_close(loss.double(), total, rtol=1e-5, atol=1e-6)


def test_horizons_longer_than_the_sequence_count_for_nothing():
    model = predictor()

    _, parts = model(
        sequence(6, length=2), sequence(5, length=2), sequence(2, length=1), torch.zeros(2, 2)
    )

    assert parts.shape == (2,)


def test_the_loss_can_be_differentiated_twice():
    model = predictor()
    loss, _ = model(sequence(6), sequence(5), sequence(2, length=4), torch.zeros(2, 5))

    grads = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    twice = torch.autograd.grad(sum(g.square().sum() for g in grads), list(model.parameters()))

    assert all(torch.isfinite(g).all() for g in twice)


def test_a_crop_of_everything_is_the_image():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    everything = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4)

    torch.testing.assert_close(resized_crops(images, everything), images, rtol=0.0, atol=1e-12)


def test_a_crop_of_the_left_half_is_stretched_to_the_whole_width():
    images = torch.arange(8.0, dtype=torch.float64).expand(1, 1, 8, 8)

    crop = resized_crops(images, torch.tensor([[-0.5, 0.0, 0.5, 1.0]]))

    # Output pixel i lies at input place (i + 0.5) / 2 - 0.5; edge values repeat outside.
    place = (torch.arange(8, dtype=torch.float64) + 0.5) / 2.0 - 0.5
    torch.testing.assert_close(crop[0, 0, 3], place.clamp(min=0.0), rtol=0.0, atol=1e-12)


def test_a_stretched_quarter_is_the_interpolated_quarter_away_from_its_edge():
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64)

    crop = resized_crops(images, torch.tensor([[-0.5, -0.5, 0.5, 0.5]]))

    stretched = F.interpolate(images[..., :8, :8], size=16, mode="bilinear", align_corners=False)
    inner = (..., slice(0, 15), slice(0, 15))
    torch.testing.assert_close(crop[inner], stretched[inner], rtol=0.0, atol=1e-12)


def test_boxes_lie_in_the_image_and_cover_the_areas_asked_for():
    torch.manual_seed(0)
    boxes = random_boxes(20_000, min_area=0.25, device=torch.device("cpu"))

    centre, half = boxes[:, :2], boxes[:, 2:]
    assert float((centre.abs() + half).max()) <= 1.0 + 1e-6
    area = half.prod(1)
    assert 0.24 < float(area.min()) < 0.26
    assert 0.99 < float(area.max()) <= 1.0
    ratio = half[:, 0] / half[:, 1]
    assert 0.74 < float(ratio.min()) < 0.76
    assert 1.32 < float(ratio.max()) < 1.34
    assert abs(float(centre.mean())) < 0.01
