"""Shrinking and stacking images."""

import numpy as np
import pytest

from mbrl_flat.envs.frames import AreaResize, FrameStack, area_weights


@pytest.mark.parametrize(("size", "target"), [(210, 64), (160, 64), (8, 8), (9, 2)])
def test_every_pixel_is_an_average_and_every_source_pixel_counts_the_same(size, target):
    weights = area_weights(size, target).astype(np.float64)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(weights.sum(0), target / size, atol=1e-6)


def test_shares_of_a_pixel_on_the_edge_are_areas():
    np.testing.assert_allclose(area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], 1e-6)


def test_whole_blocks_are_averaged_and_rounded():
    image = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)
    small = AreaResize(8, 12, 4)(image)
    blocks = image.reshape(4, 2, 4, 3, 3).mean((1, 3)).transpose(2, 0, 1)
    assert small.dtype == np.uint8
    assert np.abs(small - blocks).max() <= 0.5 + 1e-4


def test_an_image_is_the_product_with_the_weights_on_both_sides():
    image = np.random.default_rng(0).integers(256, size=(210, 160, 3), dtype=np.uint8)
    rows, columns = area_weights(210, 64), area_weights(160, 64)
    expected = np.einsum("ih,hwc,jw->cij", rows, image.astype(np.float64), columns)
    assert np.abs(AreaResize(210, 160, 64)(image) - expected).max() <= 0.5 + 1e-3


def test_a_stack_starts_with_copies_and_then_drops_the_oldest():
    frames = [np.full((1, 2, 2), value, np.uint8) for value in range(5)]
    stack = FrameStack(3)
    seen = [stack.begin(frames[0]), *[stack.push(frame) for frame in frames[1:]]]
    assert [one[:, 0, 0].tolist() for one in seen] == [
        [0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4],
    ]  # fmt: skip
    other = FrameStack(3)
    other.restore(seen[-1])
    assert np.array_equal(other.push(frames[0]), stack.push(frames[0]))
