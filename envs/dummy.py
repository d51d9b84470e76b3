"""A point to be steered to the origin: milliseconds an episode, for tests and first steps."""

from typing import Any

import gymnasium as gym
import numpy as np

from mbrl_flat.envs.pixels import PixelObs
from mbrl_flat.envs.wrappers import ActionRepeat, Resumable
from mbrl_flat.errors import UnknownNameError
from mbrl_flat.settings import check_number

TASKS = ("point", "point-discrete", "point-terminating")


def make(
    task: str = "point",
    *,
    seed: int,
    render: bool = False,
    action_repeat: int = 1,
    episode_length: int = 50,
    obs: str = "state",
    frame_stack: int = 3,
) -> gym.Env[Any, Any]:
    """Build the environment.

    Args:
        task: ``point``; ``point-discrete`` with five actions; ``point-terminating``, which ends
            where the point leaves the unit box.
        seed: Determines every episode.
        render: Whether ``render()`` will be called, as for videos.
        action_repeat: Frames per step.
        episode_length: Frames per episode.
        obs: ``state``, or ``rgb`` for images of 64x64 pixels.
        frame_stack: Newest images joined along the channels.

    Returns:
        The environment: observations ``{"state": [3]}`` (position and time) or ``{"rgb":
        [3 * frame_stack, 64, 64]}``.

    Raises:
        UserError: If a number is out of range.
        UnknownNameError: If there is no such task or kind of observation.
    """
    if obs not in ("state", "rgb"):
        raise UnknownNameError("obs", obs, ("state", "rgb"), where="env=dummy")
    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS, where="env=dummy")
    for name, value in {"action_repeat": action_repeat, "episode_length": episode_length}.items():
        check_number(f"env.{name}", value, "[1, inf)", whole=True)
    point = Point(task, seed=seed, render=render, episode_length=episode_length)
    steps = -(-episode_length // action_repeat)
    env: gym.Env[Any, Any] = ActionRepeat(point, action_repeat)
    pixels = obs == "rgb"
    return Resumable(
        PixelObs(env, size=64, frame_stack=frame_stack) if pixels else env,
        episode_length=steps,
        action_repeat=action_repeat,
        frame_stack=frame_stack if pixels else 1,
    )


class Point(gym.Env[Any, Any]):
    """``x' = x + 0.1 a + noise`` with reward ``exp(-4 |x|^2)``."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as in Gymnasium

    def __init__(self, task: str, *, seed: int, render: bool, episode_length: int) -> None:
        self.task, self.max_episode_steps = task, episode_length
        self.render_mode = "rgb_array" if render else None
        self.observation_space = gym.spaces.Dict(
            {"state": gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)}
        )
        discrete = gym.spaces.Discrete(5)
        box = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = discrete if task == "point-discrete" else box
        self.position = np.zeros(2)
        self.elapsed = 0
        self.np_random = np.random.default_rng(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Put the point somewhere in the box."""
        super().reset(seed=seed, options=options)
        self.position = self.np_random.uniform(-0.8, 0.8, 2)
        self.elapsed = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move it."""
        moves = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float64)
        move = moves[action] if self.task == "point-discrete" else np.asarray(action, np.float64)
        self.position = self.position + 0.1 * move + self.np_random.normal(0.0, 0.005, 2)
        self.elapsed += 1
        outside = bool(np.abs(self.position).max() > 1.0)
        terminated = outside and self.task == "point-terminating"
        truncated = self.elapsed >= self.max_episode_steps and not terminated
        reward = float(np.exp(-4.0 * np.square(self.position).sum()))
        info = {"success": float(np.abs(self.position).max() < 0.1)}
        return self._obs(), reward, terminated, truncated, info

    def _obs(self) -> dict[str, np.ndarray]:
        time = self.elapsed / self.max_episode_steps
        return {"state": np.array([*self.position, time], np.float32)}

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """RGB image ``[64, 64, 3]`` with the point in white."""
        return None if self.render_mode is None else self.draw(64)

    def draw(self, size: int) -> np.ndarray:
        """RGB image ``[size, size, 3]`` with the point as a white square."""
        image = np.zeros((size, size, 3), np.uint8)
        place = np.clip((self.position + 1.0) * size / 2, 1, size - 2)
        column, row = place.astype(int)
        image[row - 1 : row + 2, column - 1 : column + 2] = 255
        return image
