"""Observations that are images of an environment instead of its state."""

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from mbrl_flat.envs.frames import FrameStack
from mbrl_flat.envs.wrappers import Obs
from mbrl_flat.settings import check_number


class Drawable(Protocol):
    """An environment that can be drawn at any size, whether or not it is rendered for a viewer."""

    def draw(self, size: int) -> np.ndarray:
        """RGB image ``[size, size, 3]``, uint8, of the present state."""
        ...


class PixelObs(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Replaces the observation by ``{"rgb": [3 * frame_stack, size, size]}`` in uint8.

    Args:
        env: The environment; ``env.unwrapped`` is ``Drawable``.
        size: Height and width.
        frame_stack: Newest images joined along the channels.

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(self, env: gym.Env[Any, Any], *, size: int, frame_stack: int) -> None:
        RecordConstructorArgs.__init__(self, size=size, frame_stack=frame_stack)
        gym.Wrapper.__init__(self, env)
        check_number("env.size", size, "[8, 256]", whole=True)
        check_number("env.frame_stack", frame_stack, "[1, inf)", whole=True)
        self.size = size
        self._stack = FrameStack(frame_stack)
        box = gym.spaces.Box(0, 255, (3 * frame_stack, size, size), np.uint8)
        self.observation_space = gym.spaces.Dict({"rgb": box})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start an episode with a stack of its first image."""
        _, info = self.env.reset(seed=seed, options=options)
        return {"rgb": self._stack.begin(self._image())}, info

    def step(self, action: Any) -> tuple[Obs, Any, bool, bool, dict[str, Any]]:
        """Step and take a image of where that led."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return {"rgb": self._stack.push(self._image())}, reward, terminated, truncated, info

    def _image(self) -> np.ndarray:
        drawable: Any = self.unwrapped
        return np.ascontiguousarray(drawable.draw(self.size).transpose(2, 0, 1))
