"""Perturbations: lengths and cosines, and weights that come back."""

import copy
import pickle

import pytest
import torch

from mbrl_flat.optim.perturbation import (
    SAMPLE,
    Perturbation,
    WeightBackup,
    added_and_subtracted,
    cosine,
)


def dictionary(params, perturbation):
    return dict(zip(params, perturbation.sample(), strict=True))


@pytest.mark.parametrize("scales", [[0.5, 0.5], [-0.5, 3.0]])
def test_length_and_tensors_are_those_of_the_scaled_directions(scales):
    directions = [torch.randn(3, 4).double(), torch.randn(5).double()]
    perturbation = Perturbation(directions=directions, scales=scales)
    scaled = [d * s for d, s in zip(directions, scales, strict=True)]
    params = [torch.zeros_like(d) for d in directions]

    perturbation.add_to(params)

    torch.testing.assert_close(perturbation.norm(), torch.cat([t.flatten() for t in scaled]).norm())
    for added, tensor, expected in zip(params, perturbation.tensors(), scaled, strict=True):
        assert torch.equal(tensor, expected)
        assert torch.equal(added, expected)


def test_a_known_length_is_not_computed_again():
    perturbation = Perturbation(directions=[torch.ones(4)], scales=[-3.0], length=2.0)

    assert float(perturbation.norm()) == 6.0
    assert float((-perturbation).norm()) == 6.0


def test_the_cosine_of_small_displacements_is_exact():
    params = [torch.zeros(3, 4).double(), torch.zeros(5).double()]
    a, b = ([torch.randn_like(p) for p in params] for _ in range(2))
    flat = [torch.cat([t.flatten() for t in tensors]) for tensors in (a, b)]

    result = cosine(dictionary(params, Perturbation.of(a)), dictionary(params, Perturbation.of(b)))

    torch.testing.assert_close(result, torch.nn.functional.cosine_similarity(*flat, dim=0))


def test_what_is_not_perturbed_counts_as_zero_in_the_cosine():
    first, second = torch.zeros(1), torch.zeros(1)
    one = {first: torch.tensor([3.0]), second: torch.tensor([4.0])}

    assert float(cosine(one, {first: torch.tensor([2.0])})) == pytest.approx(0.6)
    assert float(cosine(one, {torch.zeros(1): torch.tensor([2.0])})) == 0.0
    assert float(cosine({}, one)) == 0.0


@pytest.mark.parametrize("shape", [(600, 512), (512, 600), (400_003,)])
def test_the_cosine_of_long_displacements_is_estimated_from_all_rows_and_columns(shape):
    """Directions that differ by row and column, in which a sample of few columns would fail."""
    torch.manual_seed(0)
    param = torch.zeros(shape)
    columns = torch.linspace(0.0, 3.0, shape[-1]).exp()
    a = torch.randn(shape) * columns
    b = a + torch.randn(shape) * columns.flip(0)
    expected = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)

    result = cosine(
        dictionary([param], Perturbation.of([a])), dictionary([param], Perturbation.of([b]))
    )

    assert float(result) == pytest.approx(float(expected), abs=0.05)


@pytest.mark.parametrize("size", [SAMPLE, SAMPLE + 1, 10**6, 262144])
def test_a_sample_is_small_and_stands_for_the_whole(size):
    (sample,) = Perturbation.of([torch.ones(size)]).sample()

    assert SAMPLE / 3 < sample.numel() <= SAMPLE
    assert float(sample.norm()) == pytest.approx(size**0.5, rel=1e-5)


def test_weights_come_back_exactly_from_a_room_also_after_an_error():
    params = [torch.randn(50), torch.randn(7, 3)]
    before, pointers = [p.clone() for p in params], [p.data_ptr() for p in params]
    perturbation = Perturbation(directions=[torch.randn(50), torch.randn(7, 3)], scales=[1e3, -1e3])

    with pytest.raises(KeyError), WeightBackup().perturbed(params, perturbation):
        raise KeyError

    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    assert [p.data_ptr() for p in params] == pointers


def test_a_room_is_copied_and_pickled_without_what_lies_in_it():
    backup = WeightBackup()
    with backup.perturbed([torch.randn(1000)], Perturbation.of([torch.randn(1000)])):
        pass

    assert len(pickle.dumps(backup)) < 200
    assert copy.deepcopy(backup)._space == {}


def test_adding_and_subtracting_is_right_up_to_one_rounding_of_the_perturbed_weights():
    params, direction = [torch.randn(1000)], torch.randn(1000)
    before = params[0].clone()

    with added_and_subtracted(params, Perturbation.of([direction])):
        perturbed = params[0].clone()

    torch.testing.assert_close(perturbed, before + direction)
    rounding = torch.finfo(torch.float32).eps * perturbed.abs().maximum(before.abs())
    assert ((params[0] - before).abs() <= rounding).all()
