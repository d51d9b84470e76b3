"""Splits and wrong labels: disjoint, complete, exact in number, and what is refused."""

import pytest
import torch

from mbrl_flat.errors import UserError
from mbrl_flat.studies.data import (
    class_split,
    split_indices,
    standardised,
    symmetric_label_noise,
    train_validation_test,
)

Y = torch.arange(200) % 10
X = torch.arange(200.0)[:, None]


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_disjoint_and_together_everything(seed):
    parts = train_validation_test(X, Y, train=80, validation=60, seed=seed)

    assert [len(x) for x, _ in parts] == [80, 60, 60]
    assert sorted(torch.cat([x for x, _ in parts]).flatten().tolist()) == list(range(200))
    assert all(torch.equal(x.flatten().long() % 10, y) for x, y in parts)


@pytest.mark.parametrize("sizes", [{"train": 150, "test": 51}, {"train": 100, "test": 0}])
def test_an_impossible_split_is_refused(sizes):
    with pytest.raises(UserError, match="cannot be had"):
        split_indices(Y, sizes, seed=0)


def test_a_part_that_lacks_a_class_is_refused():
    with pytest.raises(UserError, match="'tiny' of 5 examples has none of class"):
        split_indices(Y, {"tiny": 5}, seed=0)


def test_tasks_hold_the_examples_of_their_own_classes():
    first, second = class_split(X, Y, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])

    assert first[1].unique().tolist() == [0, 1, 2, 3, 4]
    assert second[1].unique().tolist() == [5, 6, 7, 8, 9]
    assert len(first[0]) + len(second[0]) == 200


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([[0, 1], []], "at least one class"),
        ([], "at least one class"),
        ([[0, 1], [1, 2]], "Class 1 is in more than one task"),
        ([[0, 11]], "Class 11 has no example"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(tasks, message):
    with pytest.raises(UserError, match=message):
        class_split(X, Y, tasks)


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_label_noise_redraws_at_most_its_share_uniformly_over_all_classes(rate):
    y = torch.zeros(20000, dtype=torch.int64)

    noisy = symmetric_label_noise(y, rate, num_classes=10, seed=0)

    changed = float((noisy != y).double().mean())
    assert abs(changed - 0.9 * rate) < 0.01
    if rate == 1.0:
        counts = noisy.bincount(minlength=10).double()
        assert float(((counts - 2000.0).square() / 2000.0).sum()) < 27.9  # chi2, 9 dof, p 0.001


def test_label_noise_leaves_its_input_alone_and_repeats_itself():
    before = Y.clone()

    once, again = (symmetric_label_noise(Y, 0.5, num_classes=10, seed=3) for _ in range(2))

    assert torch.equal(Y, before)
    assert torch.equal(once, again)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(UserError, match=str(rate)):
        symmetric_label_noise(Y, rate, num_classes=10, seed=0)


@pytest.mark.parametrize("per_pixel", [False, True])
def test_standardised_inputs_have_mean_zero_and_deviation_one(per_pixel):
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 5.0 + 2.0

    train, other = standardised(x, x[:10], per_pixel=per_pixel)

    dim = 0 if per_pixel else None
    torch.testing.assert_close(
        train.mean(dim), torch.zeros_like(train.mean(dim)), atol=1e-5, rtol=0
    )
    deviation = train.std(dim, unbiased=False)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-5, rtol=0)
    torch.testing.assert_close(other, train[:10])


def test_pixels_that_never_change_need_one_common_deviation():
    x = torch.tensor([[0.0, 1.0], [0.0, 2.0]])

    with pytest.raises(UserError, match="per_pixel=False"):
        standardised(x, per_pixel=True)
