"""MinAtar: five games on a 10x10 grid, each of whose channels shows one kind of object.

Small enough for a world model to learn from images in minutes on a CPU. Observations come in two
forms. ``grid`` has one binary channel for each kind of object, 0 or 255 in uint8 like any other
image here, in the middle of a square of ``size`` pixels. ``rgb`` has three channels; each object
has a colour and each cell is a square as large as fits.

References:
    Young & Tian, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement
    Learning Experiments", 2019, arXiv:1903.03176. Sticky actions (0.1) and difficulty ramping are
    on, as published. The actions are those that the game uses, as in the package's ``-v1`` ids.

Deviations from the paper:
    An episode is truncated after ``max_frames``; the package knows no limit.
"""

import colorsys
import importlib
import logging
from typing import Any

import gymnasium as gym
import numpy as np

from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import MissingExtraError, UnknownNameError
from mbrl_flat.settings import check_number

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
_CELLS = 10


def make(
    task: str,
    *,
    seed: int,
    render: bool = False,
    obs: str = "grid",
    size: int = 16,
    sticky: float = 0.1,
    difficulty_ramping: bool = True,
    full_action_space: bool = False,
    max_frames: int = 5_000,
) -> gym.Env[Any, Any]:
    """Build one game.

    Args:
        task: One of ``GAMES``.
        seed: Determines every episode.
        render: Whether ``render()`` will be called, as for videos.
        obs: ``grid`` or ``rgb``.
        size: Height and width of the observation, at least 10.
        sticky: Probability that a frame repeats the action of the frame before.
        difficulty_ramping: Games get harder with time.
        full_action_space: All six actions instead of those that the game uses.
        max_frames: Longest episode; then it is truncated.

    Returns:
        The environment: observations ``{obs: [C, size, size]}`` in uint8, discrete actions.

    Raises:
        UserError: If a setting is out of range.
        UnknownNameError: If there is no such game or kind of observation.
    """
    if task not in GAMES:
        raise UnknownNameError("game", task, GAMES, where="env=minatar")
    if obs not in ("grid", "rgb"):
        raise UnknownNameError("obs", obs, ("grid", "rgb"), where="env=minatar")
    check_number("env.size", size, f"[{_CELLS}, inf)", whole=True)
    check_number("env.sticky", sticky, "[0, 1)")
    check_number("env.max_frames", max_frames, "[1, inf)", whole=True)
    game = MinAtarGame(
        task, seed=seed, render=render, obs=obs, size=size, sticky=sticky,
        difficulty_ramping=difficulty_ramping, full_action_space=full_action_space,
        max_frames=max_frames,
    )  # fmt: skip
    return Resumable(game, episode_length=max_frames, action_repeat=1)


class MinAtarGame(gym.Env[Any, Any]):
    """One game. Its randomness follows from ``np_random`` alone: every reset seeds the game.

    Args:
        task: Name of the game, as in ``env.task``.
        seed: Determines every episode of this environment.
        render: Whether ``render()`` will be called, as for videos.
        obs: ``grid`` or ``rgb``.
        size: Height and width of the observation.
        sticky: Probability that a frame repeats the action of the frame before.
        difficulty_ramping: Games get harder with time.
        full_action_space: All six actions.
        max_frames: Frames after which an episode is truncated.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as in Gymnasium

    def __init__(
        self,
        task: str,
        *,
        seed: int,
        render: bool,
        obs: str,
        size: int,
        sticky: float,
        difficulty_ramping: bool,
        full_action_space: bool,
        max_frames: int,
    ) -> None:
        self._game: Any = _package().Environment(
            task, sticky_action_prob=sticky, difficulty_ramping=difficulty_ramping
        )
        every = list(range(self._game.num_actions()))
        self._actions = every if full_action_space else list(self._game.minimal_action_set())
        self.render_mode = "rgb_array" if render else None
        self.obs, self.size, self.max_frames = obs, size, max_frames
        channels = int(self._game.state_shape()[2])
        self._colours = object_colours(channels)
        shape = (3 if obs == "rgb" else channels, size, size)
        self.observation_space = gym.spaces.Dict({obs: gym.spaces.Box(0, 255, shape, np.uint8)})
        self.action_space = gym.spaces.Discrete(len(self._actions))
        self._frames = 0
        self.np_random = np.random.default_rng(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start a game."""
        super().reset(seed=seed, options=options)
        self._game.seed(int(self.np_random.integers(2**32)))
        self._game.last_action = 0
        self._game.reset()
        self._frames = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance one frame."""
        reward, terminated = self._game.act(self._actions[int(action)])
        self._frames += 1
        truncated = self._frames >= self.max_frames and not terminated
        return self._observe(), float(reward), bool(terminated), truncated, {}

    def _observe(self) -> dict[str, np.ndarray]:
        state = self._game.state()
        if self.obs == "rgb":
            return {"rgb": self._image(state, self.size).transpose(2, 0, 1).copy()}
        grid = _in_the_middle(state.astype(np.uint8) * 255, self.size)
        return {"grid": grid.transpose(2, 0, 1).copy()}

    def _image(self, state: np.ndarray, size: int) -> np.ndarray:
        """Colours ``[size, size, 3]``; where objects overlap the one of the last channel shows."""
        last = np.where(state, np.arange(1, state.shape[2] + 1), 0).max(2)
        scale = size // _CELLS
        cells = self._colours[last].repeat(scale, 0).repeat(scale, 1)
        return _in_the_middle(cells, size)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """RGB image ``[160, 160, 3]``, uint8; ``None`` where rendering was not asked for."""
        return None if self.render_mode is None else self._image(self._game.state(), 160)


def object_colours(num: int) -> np.ndarray:
    """Black, then ``num`` bright colours of evenly spaced hues, uint8 ``[num + 1, 3]``."""
    hues = [colorsys.hsv_to_rgb(index / num, 0.8, 1.0) for index in range(num)]
    return (np.array([(0.0, 0.0, 0.0), *hues]) * 255).astype(np.uint8)


def _in_the_middle(image: np.ndarray, size: int) -> np.ndarray:
    """Put an image ``[h, w, C]`` into the middle of a black one ``[size, size, C]``."""
    before = (size - image.shape[0]) // 2
    after = size - image.shape[0] - before
    return np.pad(image, ((before, after), (before, after), (0, 0)))


def _package() -> Any:
    # The package warns that it can't draw where seaborn is absent; it is never asked to draw.
    logging.disable(logging.WARNING)
    try:
        return importlib.import_module("minatar")
    except ImportError as error:
        raise MissingExtraError("env=minatar needs the package minatar", "minatar") from error
    finally:
        logging.disable(logging.NOTSET)
