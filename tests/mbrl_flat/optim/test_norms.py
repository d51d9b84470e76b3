"""Norms over many tensors: exact on small ones, accurate on long ones."""

import pytest
import torch

from mbrl_flat.optim.norms import ROW, inner, joint_norm

SIZES = [1, ROW, 8 * ROW + 1, 100 * ROW, 3_000_001]


@pytest.mark.parametrize("size", SIZES)
def test_the_norm_of_a_long_single_precision_tensor_is_right_to_rounding(size):
    generator = torch.Generator().manual_seed(size)
    tensor = torch.rand(size, generator=generator)

    expected = torch.linalg.vector_norm(tensor, dtype=torch.float64)

    assert float(joint_norm([tensor])) == pytest.approx(float(expected), rel=1e-6)


def test_the_norm_is_that_of_all_entries_together_whatever_the_shapes_and_strides():
    generator = torch.Generator().manual_seed(0)
    wide, tall = (
        torch.rand(700, 500, generator=generator),
        torch.rand(1700, 700, generator=generator).T,
    )
    parts = [wide, tall, torch.tensor([1.0, -2.0, 3.0]), torch.tensor(4.0)]
    assert not tall.is_contiguous()

    expected = torch.cat([p.flatten() for p in parts]).double().norm()

    assert float(joint_norm(parts)) == pytest.approx(float(expected), rel=1e-6)


def test_nothing_has_norm_zero_and_inner_product_zero():
    assert float(joint_norm([])) == 0.0
    assert float(inner([], [])) == 0.0


def test_one_infinite_entry_makes_the_norm_infinite():
    tensor = torch.ones(100 * ROW)
    tensor[-1] = float("inf")

    assert not joint_norm([tensor]).isfinite()
