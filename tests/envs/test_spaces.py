"""Observations and actions of any shape as agents take them."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from mbrl_flat.envs.gym import adapt
from mbrl_flat.errors import EnvironmentFailure


class Showing(gym.Env):
    """Shows a fixed observation and remembers the action that it was given."""

    def __init__(self, shown, observation_space, action_space=None):
        self.shown, self.observation_space = shown, observation_space
        self.action_space = action_space or spaces.Discrete(2)
        self.given = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.shown, {}

    def step(self, action):
        self.given = action
        return self.shown, 0.0, False, False, {}


def seen(shown, space, **settings):
    env = adapt(Showing(shown, space), name="'it'", seed=0, **settings)
    obs, _ = env.reset()
    assert obs in env.observation_space
    return obs


def given(action, space):
    env = adapt(Showing(np.zeros(1), spaces.Box(-1, 1, (1,)), space), name="'it'", seed=0)
    env.reset()
    env.step(action)
    return env.unwrapped.given


def test_vectors_discrete_values_and_small_arrays_are_joined_in_the_order_of_the_space():
    space = spaces.Dict(
        {
            "a": spaces.Box(-9, 9, (2, 2), np.float64),
            "b": spaces.Tuple((spaces.Discrete(3, start=5), spaces.MultiBinary(2))),
            "c": spaces.Box(0, 255, (2, 1, 2), np.uint8),
            "d": spaces.MultiDiscrete([2, 2]),
        }
    )
    shown = {
        "a": np.arange(4.0).reshape(2, 2),
        "b": (6, np.array([1, 0], np.int8)),
        "c": np.full((2, 1, 2), 7, np.uint8),
        "d": np.array([0, 1]),
    }

    obs = seen(shown, space)

    expected = [0, 1, 2, 3, 0, 1, 0, 1, 0, 7, 7, 7, 7, 1, 0, 0, 1]
    assert obs["state"].dtype == np.float32
    assert obs["state"].tolist() == expected


def test_an_image_and_a_vector_have_entries_of_their_own():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (64, 64, 3), np.uint8), "joints": spaces.Box(-1, 1, (2,))}
    )

    obs = seen({"camera": image, "joints": np.array([0.5, -0.5], np.float32)}, space)

    assert list(obs) == ["camera", "state"]
    np.testing.assert_array_equal(obs["camera"], image.transpose(2, 0, 1))
    assert obs["state"].tolist() == [0.5, -0.5]


LAYOUTS = {
    "height, width, channels": (32, 48, 3),
    "channels first": (3, 32, 48),
    "grey": (32, 48),
    "four grey frames": (4, 32, 48),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_every_layout_come_out_in_the_middle_of_a_square(layout):
    shape = LAYOUTS[layout]
    space = spaces.Box(0, 255, shape, np.uint8)

    image = seen(np.full(shape, 200, np.uint8), space)["rgb"]

    channels = {2: 1, 3: min(shape)}[len(shape)]
    assert image.shape == (channels, 64, 64)
    assert (image[:, 16:48, 8:56] == 200).all()
    assert image.sum() == 200 * channels * 32 * 48


def test_large_images_are_averaged():
    image = seen(np.full((210, 160, 3), 90, np.uint8), spaces.Box(0, 255, (210, 160, 3), np.uint8))

    assert image["rgb"].shape == (3, 64, 64)
    assert (image["rgb"] == 90).all()


@pytest.mark.parametrize(("high", "value"), [(1.0, 0.5), (255.0, 127.6)])
def test_images_of_floats_become_bytes(high, value):
    space = spaces.Box(0.0, high, (64, 64, 1), np.float32)

    assert (seen(np.full((64, 64, 1), value, np.float32), space)["rgb"] == 128).all()


@pytest.mark.parametrize(
    ("high", "kind", "value", "said"),
    [
        (1.0, np.float32, np.nan, r"it returned nan as its image\[0, 0, 0\]"),
        (255.0, np.float32, np.inf, r"it returned inf as its image\[0, 0, 0\]"),
        (1.0, np.float32, 200.0, "an image has values from 0 to 200, beyond its space"),
        (255, np.uint8, 300, "an image has values from 0 to 300, beyond its space"),
        (255, np.uint8, -1, "an image has values from -1 to 0, beyond its space"),
    ],
)
def test_an_image_beyond_its_space_is_named(high, kind, value, said):
    space = spaces.Box(0, high, (32, 32, 3), kind)
    image = np.zeros(space.shape, np.int64 if kind is np.uint8 else kind)
    image[0, 0, 0] = value

    with pytest.raises(EnvironmentFailure, match=said):
        seen(image, space)


def test_actions_are_mapped_in_float64():
    """In float32 the upper bound is missed by the rounding of high - low."""
    space = spaces.Box(np.array([-0.1, 5.0]), np.array([0.3, 5.0 + 1e-9]), dtype=np.float64)

    assert given(np.array([1.0, 1.0], np.float32), space).tolist() == [0.3, 5.0 + 1e-9]
    assert given(np.array([-1.0, -1.0], np.float32), space).tolist() == [-0.1, 5.0]
    assert given(np.zeros(2, np.float32), space)[0] == pytest.approx(0.1, abs=1e-15)


def test_bounds_that_meet_give_a_constant_and_integers_are_rounded():
    low, high = np.array([[2.0, -1.0], [2.0, 1.0]], np.float32)
    fixed = spaces.Box(low, high)
    whole = spaces.Box(0, 3, (2,), np.int64)

    assert given(np.array([0.7, 1.0], np.float32), fixed).tolist() == [2.0, 1.0]
    found = given(np.array([0.4, -1.0], np.float32), whole)
    assert (found.tolist(), found.dtype) == ([2, 0], np.int64)


def test_extreme_bounds_do_not_overflow():
    top = np.finfo(np.float64).max
    space = spaces.Box(-top, top, (1,), np.float64)

    assert given(np.array([1.0], np.float32), space).tolist() == [top]
    assert given(np.array([0.0], np.float32), space).tolist() == [0.0]


def test_arrays_of_actions_and_shifted_choices_keep_their_meaning():
    assert given(np.arange(-1.0, 1.0, 0.5), spaces.Box(-2, 2, (2, 2))).tolist() == [
        [-2, -1],
        [0, 1],
    ]
    assert given(1, spaces.Discrete(3, start=-1)) == 0
