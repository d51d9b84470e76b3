"""The DeepMind Control suite and TD-MPC2's additions to it, as Gymnasium environments.

A step repeats one action for ``action_repeat`` frames and sums their rewards; an episode is 1000
frames. The time limit truncates; a task that ends by itself (discount 0) terminates.

Observations are proprioception or, with ``obs="rgb"``, images alone: 64x64, the newest three
joined, seen by the task's first camera (the third for quadrupeds), as in TD-MPC2 and DrQ-v2.

References:
    Tassa et al., "DeepMind Control Suite", 2018, arXiv:1801.00690. Action repeat 2 as in TD-MPC2.
"""

import ctypes.util
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from mbrl_flat.envs.pixels import PixelObs
from mbrl_flat.envs.wrappers import Resumable
from mbrl_flat.errors import MissingExtraError, UnknownNameError, UserError
from mbrl_flat.evaluation.reference_scores import one_spelling
from mbrl_flat.settings import check_number

MAX_FRAMES = 1000
_IMAGE = 384
_INSTALL = "apt-get install libegl1 libopengl0 libosmesa6 libgl1-mesa-dri"


def task_names() -> dict[str, tuple[str, str]]:
    """Every task as ``domain-task``: ``dm_control.suite.ALL_TASKS`` and the custom ones."""
    pairs = [*_suite().ALL_TASKS, *_custom().TASKS]
    return {f"{domain}-{task}": (domain, task) for domain, task in pairs}


def find_task(name: str) -> tuple[str, str]:
    """Domain and task of a name, in this project's spelling or in that of the published tables.

    Args:
        name: Such as ``ball_in_cup-catch``, or ``cup-catch`` as TD-MPC2 writes it.

    Returns:
        Domain and task.

    Raises:
        UnknownNameError: If there is no such task.
    """
    names = task_names()
    spellings = {one_spelling("dmc", known): pair for known, pair in names.items()}
    wanted = one_spelling("dmc", name)
    if wanted not in spellings:
        raise UnknownNameError("task", name, names, where="env=dmc")
    return spellings[wanted]


def make(
    task: str,
    *,
    seed: int,
    render: bool = False,
    action_repeat: int = 2,
    obs: str = "state",
    size: int = 64,
    frame_stack: int = 3,
    camera: int | str | None = None,
    fast_rendering: bool = False,
) -> gym.Env[Any, Any]:
    """Build one task.

    Args:
        task: Name such as ``walker-walk`` or ``ball_in_cup-catch``.
        seed: Determines every episode.
        render: Allow ``render()``, which needs EGL or OSMesa.
        action_repeat: Frames per step.
        obs: ``state`` or ``rgb``.
        size: Height and width of the images.
        frame_stack: Newest images joined along the channels.
        camera: Index or name of a camera of the task's model; by default 2 for quadrupeds, else 0.
        fast_rendering: Leave out shadows and reflections, which takes a fifth of the time. The
            images differ, so returns cannot be compared with those of the published settings.

    Returns:
        The environment: observations ``{"state": [n]}`` or ``{"rgb": [3 * frame_stack, size,
        size]}`` in uint8, actions in [-1, 1].

    Raises:
        UserError: If a setting is out of range, or there is nothing to render with.
        UnknownNameError: If there is no such task or camera.
    """
    if obs not in ("state", "rgb"):
        raise UnknownNameError("obs", obs, ("state", "rgb"), where="env=dmc")
    check_number("action_repeat", action_repeat, "[1, inf)", whole=True)
    if render or obs == "rgb":
        choose_renderer()
    domain, name = find_task(task)
    suite_task = SuiteTask(
        domain,
        name,
        seed=seed,
        render=render,
        action_repeat=action_repeat,
        camera=camera,
        fast_rendering=fast_rendering,
    )
    pixels = obs == "rgb"
    return Resumable(
        PixelObs(suite_task, size=size, frame_stack=frame_stack) if pixels else suite_task,
        episode_length=suite_task.max_episode_steps,
        action_repeat=action_repeat,
        frame_stack=frame_stack if pixels else 1,
    )


class SuiteTask(gym.Env[Any, Any]):
    """One task of the suite.

    Its randomness follows from ``np_random`` alone: every reset seeds the task from it.

    Args:
        domain: Domain of the suite.
        task: Task of the domain.
        seed: Determines every episode of this environment.
        render: Whether ``render()`` will be called, as for videos.
        action_repeat: Frames per step.
        camera: Index or name of a camera; the usual one if ``None``.
        fast_rendering: Leave out shadows and reflections.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 - as in Gymnasium

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        seed: int,
        render: bool,
        action_repeat: int,
        camera: int | str | None = None,
        fast_rendering: bool = False,
    ) -> None:
        self._task_random = np.random.RandomState(seed)
        self._env = _load(domain, task, self._task_random)
        self.render_mode = "rgb_array" if render else None
        usual = 2 if domain == "quadruped" else 0
        self.camera = usual if camera is None else self._find_camera(camera, f"{domain}-{task}")
        plain = {"shadow": False, "reflection": False}
        self._flags = {"render_flag_overrides": plain} if fast_rendering else {}
        self.action_repeat = action_repeat
        frame_limit = int(min(self._env._step_limit, MAX_FRAMES))
        self.max_episode_steps = -(-frame_limit // action_repeat)
        self._elapsed = 0
        bounds = self._env.action_spec()
        # The linear-quadratic tasks have no bounds, which the simulator writes as 1e10.
        free = bounds.maximum >= 1e9
        self._low = np.where(free, -1.0, bounds.minimum)
        self._high = np.where(free, 1.0, bounds.maximum)
        size = sum(int(np.prod(part.shape)) for part in self._env.observation_spec().values())
        self.observation_space = gym.spaces.Dict(
            {"state": gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)}
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, bounds.shape, np.float32)
        # Gymnasium seeds this attribute at the first reset with a seed; ours starts seeded.
        self.np_random = np.random.default_rng(seed)

    def _find_camera(self, camera: int | str, task: str) -> int:
        """Index of a camera given by its index or name."""
        model = self._env.physics.model
        names = [model.id2name(index, "camera") for index in range(model.ncam)]
        if isinstance(camera, str) and camera in names:
            return names.index(camera)
        if isinstance(camera, int) and 0 <= camera < len(names):
            return camera
        allowed = [*names, *map(str, range(len(names)))]
        raise UnknownNameError("camera", str(camera), allowed, where=f"task {task!r}")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed, options=options)
        self._task_random.seed(int(self.np_random.integers(2**32)))
        self._elapsed = 0
        with explained_rendering():
            return _flatten(self._env.reset().observation), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeat one action; rewards are summed until the episode ends."""
        share = 0.5 * (np.asarray(action, np.float64) + 1.0)
        control = self._low + share * (self._high - self._low)
        outcome = self._env.step(control)
        reward = float(outcome.reward or 0.0)
        for _ in range(self.action_repeat - 1):
            if outcome.last():
                break
            outcome = self._env.step(control)
            reward += float(outcome.reward or 0.0)
        self._elapsed += 1
        terminated = outcome.last() and outcome.discount == 0.0
        over = outcome.last() or self._elapsed >= self.max_episode_steps
        return _flatten(outcome.observation), reward, terminated, over and not terminated, {}

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """RGB image ``[384, 384, 3]``, uint8; ``None`` where rendering was not asked for."""
        return None if self.render_mode is None else self.draw(_IMAGE)

    def draw(self, size: int) -> np.ndarray:
        """RGB image ``[size, size, 3]``, uint8."""
        with explained_rendering():
            return self._env.physics.render(size, size, camera_id=self.camera, **self._flags)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()


def _flatten(observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
    parts = [np.ravel(part) for part in observation.values()]
    return {"state": np.concatenate(parts).astype(np.float32)}


def choose_renderer() -> None:
    """Choose EGL or OSMesa by what the machine has, unless ``MUJOCO_GL`` or a screen is set.

    Raises:
        UserError: If there is neither, or a screen is asked for where there is none.
    """
    set_renderer()
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen.lower() in ("0", "disable", "disabled", "false", "off"):
        raise UserError(
            f"Rendering needs EGL or OSMesa, and MUJOCO_GL={chosen} is set or neither is "
            f"installed; on Debian: {_INSTALL}."
        )
    screen = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if chosen == "glfw" and sys.platform == "linux" and not screen:
        raise UserError(
            "MUJOCO_GL=glfw draws to a screen, and this machine has none (DISPLAY is not set); "
            "use MUJOCO_GL=egl with a GPU or MUJOCO_GL=osmesa without."
        )


@contextmanager
def explained_rendering() -> Iterator[None]:
    """Say what to do about an error of the renderer in the body.

    Raises:
        UserError: In place of an error that names OpenGL.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if "GL" not in str(error):
            raise
        raise UserError(
            f"The simulator cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} "
            f"({type(error).__name__}: {error}). Use MUJOCO_GL=egl with a GPU or MUJOCO_GL=osmesa "
            f"without; on Debian: {_INSTALL}. A few tasks, such as quadruped-escape, need it even "
            f"for observations that are vectors."
        ) from error


def set_renderer() -> None:
    """Set ``MUJOCO_GL`` before the simulator reads it, unless the user or a screen decides."""
    if "MUJOCO_GL" in os.environ or "DISPLAY" in os.environ:
        return
    found = ctypes.util.find_library
    if found("EGL") and (found("OpenGL") or found("GL")):
        os.environ["MUJOCO_GL"] = "egl"
    else:
        os.environ["MUJOCO_GL"] = "osmesa" if found("OSMesa") else "disable"


def _suite() -> Any:
    """Import the suite when it is needed: it takes a second, and picks a renderer."""
    set_renderer()
    try:
        from dm_control import suite  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("env=dmc needs dm-control", "dmc") from error
    # A library without its other half makes PyOpenGL fail in as many ways as it has.
    except Exception as error:
        raise UserError(
            f"dm-control cannot load the renderer MUJOCO_GL={os.environ.get('MUJOCO_GL')} "
            f"({type(error).__name__}: {error}); on Debian: {_INSTALL}. "
            f"MUJOCO_GL=disable does without, for observations that are vectors."
        ) from error
    return suite


def _custom() -> Any:
    """Import the custom tasks, which need the suite."""
    _suite()
    return importlib.import_module("mbrl_flat.envs.dmc_custom")


def _load(domain: str, task: str, random: np.random.RandomState) -> Any:
    """Build a task of the suite or a custom one."""
    custom = _custom().TASKS.get((domain, task))
    if custom is not None:
        return custom.build(random)
    return _suite().load(domain, task, task_kwargs={"random": random})
