"""Stages of continual learning: what is replayed, what is shared, what an optimizer changes."""

import pytest
import torch
from torch import nn

from mbrl_flat.errors import DivergedError, UserError
from mbrl_flat.studies.hopfield.continual import Stage, learn, shuffle_pixels
from mbrl_flat.studies.hopfield.ddpm import NoiseSchedule

SCHEDULE = NoiseSchedule(50)
NEW, OLD = torch.full((12, 1, 2, 2), 0.5), torch.full((3, 1, 2, 2), -1.0)


class Asked(list):
    """Keeps every evaluation of a step; a list of Python's would be put back between them."""


class Linear(nn.Module):
    """A denoiser of four weights that remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, 2, 2), 0.1))
        self.asked = Asked()

    def forward(self, images, time):
        self.asked.append((images.detach().clone(), time.clone()))
        return self.scale * images


def trained(stage, **settings):
    model = Linear()
    learn(model, NEW, SCHEDULE, stage, seed=1, **settings)
    return model


def test_every_evaluation_of_a_step_sees_the_same_batch_times_and_noise():
    model = trained(Stage(optimizer="sam", settings={"rho": 0.1}, steps=3))

    assert len(model.asked) == 6
    for first, second in zip(model.asked[::2], model.asked[1::2], strict=True):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
    assert not torch.equal(model.asked[0][0], model.asked[2][0])


def test_a_radius_of_zero_is_adam_bit_for_bit():
    adam = trained(Stage(steps=4))
    sam = trained(Stage(optimizer="sam", settings={"rho": 0.0}, steps=4))

    assert torch.equal(adam.scale, sam.scale)
    assert not torch.equal(adam.scale, Linear().scale)


def test_a_share_of_each_batch_is_replayed_and_the_noise_stays_the_same():
    stage = Stage(steps=2, batch_size=8)
    without, replaying = trained(stage), trained(stage, replayed=OLD, share=0.25)

    for (plain, time), (mixed, other) in zip(without.asked, replaying.asked, strict=True):
        assert torch.equal(time, other)
        signal = SCHEDULE.signal[time].view(-1, 1, 1, 1)
        moved = (plain - mixed) / signal
        torch.testing.assert_close(moved[:6], torch.zeros(6, 1, 2, 2), rtol=0.0, atol=1e-5)
        torch.testing.assert_close(moved[6:], torch.full((2, 1, 2, 2), 1.5), rtol=0.0, atol=1e-3)


def test_nothing_kept_is_no_replay():
    stage = Stage(steps=2)

    empty = trained(stage, replayed=OLD[:0])

    assert torch.equal(empty.scale, trained(stage).scale)


def test_divergence_says_at_which_step():
    with pytest.raises(DivergedError) as error:
        learn(Linear(), NEW * torch.nan, SCHEDULE, Stage(steps=2), seed=0)

    assert error.value.step == 0


def test_shuffled_images_keep_their_pixels_and_the_others_are_as_they_were():
    images = torch.arange(40.0).view(10, 1, 2, 2)

    changed, index = shuffle_pixels(images, 3, seed=0)
    again, _ = shuffle_pixels(images, 3, seed=0)

    assert torch.equal(changed, again)
    others = torch.ones(10, dtype=torch.bool)
    others[index] = False
    assert torch.equal(changed[others], images[others])
    assert torch.equal(changed.flatten(1).sort(1).values, images.flatten(1))
    assert not torch.equal(changed, images)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(UserError, match="did you mean 'adam'"):
        Stage(optimizer="adm")
    with pytest.raises(UserError, match="batch_size must be at least 2, got 1"):
        Stage(batch_size=1)
    with pytest.raises(UserError, match="Cannot plant 11 outliers among 10 images"):
        shuffle_pixels(torch.zeros(10, 1, 2, 2), 11, seed=0)
