"""Random shifts of images."""

import pytest
import torch
from torch.nn import functional as F

from mbrl_flat.models.random_shift import pad_border, random_shift


def images(*shape, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("pad", [1, 3])
def test_the_border_is_repeated_as_torch_repeats_it(pad):
    x = images(2, 3, 6, 5)
    expected = F.pad(x.float(), (pad,) * 4, mode="replicate")
    assert torch.equal(pad_border(x, pad).float(), expected)


def test_each_image_is_a_window_of_itself_and_every_shift_is_as_likely():
    x = images(1, 2, 8, 8).expand(4900, -1, -1, -1)
    padded = pad_border(x[:1], 3)[0]
    windows = {
        padded[:, i : i + 8, j : j + 8].numpy().tobytes(): (i, j)
        for i in range(7)
        for j in range(7)
    }
    torch.manual_seed(0)
    found = [windows[one.numpy().tobytes()] for one in random_shift(x, 3)]
    counts = torch.tensor([found.count(shift) for shift in windows.values()])
    assert len(windows) == 49
    # 100 expected of each, with a standard deviation of 10.
    assert (counts - 100).abs().max() < 50


def test_shifts_are_the_published_interpolation_at_integer_places():
    x = images(5, 3, 64, 64, dtype=torch.float64)
    torch.manual_seed(1)
    ours = random_shift(x, 3)
    torch.manual_seed(1)
    shift = torch.randint(7, (2, 5)).double()
    # DrQ-v2: a grid over the padded image, moved by whole pixels, sampled bilinearly.
    side = 64 + 6
    base = torch.linspace(-1 + 1 / side, 1 - 1 / side, side, dtype=torch.float64)[:64]
    rows = (base[None] + shift[0][:, None] * 2 / side)[:, :, None].expand(-1, -1, 64)
    columns = (base[None] + shift[1][:, None] * 2 / side)[:, None].expand(-1, 64, -1)
    grid = torch.stack([columns, rows], -1)
    theirs = F.grid_sample(F.pad(x, (3,) * 4, mode="replicate"), grid, align_corners=False)
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-9)


def test_leading_axes_type_and_generator_are_kept():
    x = images(2, 4, 3, 8, 8)
    before = torch.get_rng_state()
    first = random_shift(x, 2, generator=torch.Generator().manual_seed(5))
    second = random_shift(x, 2, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert (first.shape, first.dtype) == (x.shape, torch.uint8)


def test_a_pad_of_zero_changes_and_draws_nothing():
    x = images(2, 3, 8, 8)
    before = torch.get_rng_state()
    assert random_shift(x, 0) is x
    assert torch.equal(torch.get_rng_state(), before)
