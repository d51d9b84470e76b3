"""One seed for all streams, and a context that leaves none of them moved."""

import io
import random

import numpy as np
import pytest
import torch

from mbrl_flat.runtime.seeding import (
    restored_rng,
    rng_state,
    seed_everything,
    set_generator,
    set_rng_state,
)


def draw():
    """A number from each global stream; the normal ones use what the streams hold back."""
    return [
        random.random(),
        random.gauss(0.0, 1.0),
        np.random.rand(),  # noqa: NPY002 - the global stream is what is meant
        np.random.randn(),  # noqa: NPY002
        torch.rand(()).item(),
        torch.randn(()).item(),
    ]


@pytest.fixture(autouse=True)
def _restored():
    with restored_rng():
        yield


def test_a_seed_determines_every_stream():
    seed_everything(3)
    first = draw()
    seed_everything(3)
    again = draw()
    seed_everything(4)
    other = draw()

    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_seeds_beyond_what_numpy_takes_are_accepted():
    seed_everything(2**32 + 1)


def test_a_state_put_back_gives_the_same_draws_also_after_a_file():
    seed_everything(0)
    draw()
    state = rng_state()
    expected = [draw(), draw()]
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)

    set_rng_state(torch.load(file, weights_only=True))

    assert [draw(), draw()] == expected


def test_a_state_is_a_copy():
    state = rng_state()
    before = state["torch"].clone()
    draw()

    assert torch.equal(state["torch"], before)


def test_streams_are_put_back_on_exit():
    seed_everything(1)
    with restored_rng():
        inside = draw()

    assert draw() == inside


def test_streams_are_put_back_when_the_body_raises():
    seed_everything(1)
    inside = []

    def fail():
        with restored_rng():
            inside.extend(draw())
            raise RuntimeError("body")

    with pytest.raises(RuntimeError, match="body"):
        fail()

    assert draw() == inside


def test_a_number_held_back_by_a_normal_draw_is_kept():
    seed_everything(1)
    np.random.randn()  # noqa: NPY002 - leaves the second of a pair in the stream
    random.gauss(0.0, 1.0)
    with restored_rng():
        inside = draw()

    assert draw() == inside


def test_a_generator_goes_on_where_its_state_was_saved():
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    state = generator.get_state()
    expected = torch.rand(3, generator=generator)

    for saved_on in ("cpu", None):
        again = torch.Generator().manual_seed(6)
        set_generator(again, state, saved_on=saved_on, seeds=[0, 0])

        assert torch.equal(torch.rand(3, generator=again), expected)


@pytest.mark.parametrize("saved_on", ["cuda", None])
def test_a_state_of_another_kind_of_device_begins_a_stream_of_its_own_seeds(saved_on):
    """The state of a CUDA generator is 16 bytes, seed and offset."""
    state = torch.zeros(16, dtype=torch.uint8)
    draws = []
    for seeds in ([1, 7], [1, 7], [1, 8], [2, 7]):
        generator = torch.Generator().manual_seed(9)
        set_generator(generator, state, saved_on=saved_on, seeds=seeds)
        draws.append(float(torch.rand((), generator=generator)))

    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
