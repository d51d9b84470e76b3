"""HumanoidBench from its own package, from proprioception, as Gymnasium environments.

A fall terminates an episode, the time limit truncates it. An episode is a success when its return
reaches the task's success bar; the normalised score is the return over that bar.

References:
    Sferrazza et al., "HumanoidBench", 2024, arXiv:2403.10506.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from mbrl_flat.envs.dmc import choose_renderer
from mbrl_flat.envs.humanoid_bench_compat import engine, global_random, load_model, load_package
from mbrl_flat.envs.wrappers import ActionRepeat, Resumable
from mbrl_flat.errors import UnknownNameError, UserError

_IMAGE = 256
_GOAL_SIZE, _GOAL_COLOUR = 0.05, (0.8, 0.28, 0.28, 1.0)
# The constructors of g1's tasks change heights that the rewards of every other robot share.
_families: set[str] = set()


def task_names() -> dict[str, tuple[str, str, str]]:
    """Every id whose model the package has, with its robot, kind of control and task."""
    package = load_package()
    models = Path(package.__file__).parent / "assets" / "envs"
    found = {}
    for robot in package.ROBOTS:
        control = "torque" if robot == "g1" else "pos"
        for task, info in package.TASKS.items():
            path = info.kwargs.get("model_path", f"envs/{robot}_{control}_{task}.xml")
            if (models.parent / path).exists():
                found[f"{robot}-{task}-v0"] = (robot, control, task)
    return found


def make(
    task: str,
    *,
    seed: int,
    render: bool = False,
    action_repeat: int = 1,
    camera: str | None = None,
) -> gym.Env[Any, Any]:
    """Build one task.

    Args:
        task: Id such as ``h1hand-walk-v0``.
        seed: Determines every episode.
        render: Allow ``render()``, which needs EGL or OSMesa.
        action_repeat: Control steps of 0.02 s per step; rewards are summed.
        camera: Camera of the model; by default the task's own.

    Returns:
        The environment: observations ``{"state": [n]}``, actions in [-1, 1].

    Raises:
        UserError: If g1 and another robot meet in one process.
        MissingExtraError: If the package is absent.
        UnknownNameError: If there is no such robot, task or camera.
    """
    if render:
        choose_renderer()
    robot, control, name = _lookup(task)
    _claim_family("g1" if robot == "g1" else "h1")
    env = HumanoidTask(robot, control, name, seed=seed, render=render, camera=camera)
    return Resumable(
        ActionRepeat(env, action_repeat),
        episode_length=-(-env.max_episode_steps // action_repeat),
        action_repeat=action_repeat,
        score_range=(0.0, env.success_bar),
    )


def _lookup(task: str) -> tuple[str, str, str]:
    names = task_names()
    if task in names:
        return names[task]
    robots = load_package().ROBOTS
    robot = task.split("-", maxsplit=1)[0]
    if robot not in robots:
        raise UnknownNameError("robot", robot, robots, where="env=humanoid_bench")
    own = [name for name in names if name.startswith(f"{robot}-")]
    raise UnknownNameError("task", task, own, where="env=humanoid_bench")


def _claim_family(family: str) -> None:
    if _families - {family}:
        raise UserError(
            "env=humanoid_bench takes either g1 or the h1 robots in one process, because making a "
            "g1 task changes the rewards of h1; start another process for the other one."
        )
    _families.add(family)


class HumanoidTask(gym.Env[Any, Any]):
    """One task of the package; an episode follows from ``np_random`` at its reset alone.

    Args:
        robot: Robot of the package.
        control: ``pos`` or ``torque``, as the package pairs it with the robot.
        task: Task of the package.
        seed: Determines every episode of this environment.
        render: Whether ``render()`` will be called, as for videos.
        camera: Camera of the model; by default the task's own.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 - as in Gymnasium

    def __init__(
        self, robot: str, control: str, task: str, *, seed: int, render: bool, camera: str | None
    ) -> None:
        package = load_package()
        info = package.TASKS[task]
        self.success_bar = float(info.success_bar)
        self.max_episode_steps = int(info.max_episode_steps)
        self.render_mode = "rgb_array" if render else None
        self._random = np.random.RandomState(seed % 2**32)
        self._renderer: Any = None
        self._elapsed, self._return = 0, 0.0

        class Simulated(package.HumanoidEnv):
            def _initialize_simulation(self) -> tuple[Any, Any]:
                model = load_model(self.fullpath)
                model.vis.global_.offwidth = max(model.vis.global_.offwidth, _IMAGE)
                model.vis.global_.offheight = max(model.vis.global_.offheight, _IMAGE)
                return model, engine().MjData(model)

        with global_random(self._random), contextlib.redirect_stdout(io.StringIO()):
            # Without a render mode the package opens no GL context; images are ours.
            self._env: Any = Simulated(
                robot=robot, control=control, task=task, render_mode=None, **info.kwargs
            )
            # Some tasks change their own settings in their first reset and never again.
            self._env.reset(seed=0)
        self.camera = self._camera(camera, info.camera_name)
        size = self._env.observation_space.shape
        self.observation_space = gym.spaces.Dict(
            {"state": gym.spaces.Box(-np.inf, np.inf, size, np.float32)}
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, self._env.action_space.shape, np.float32)
        self.np_random = np.random.default_rng(seed)

    def _camera(self, asked: str | None, usual: str) -> str:
        """The camera asked for, or the task's; the models of g1 lack many of the latter."""
        model = self._env.model
        cameras = [model.camera(i).name for i in range(model.ncam) if model.camera(i).name]
        if asked is None:
            return usual if usual in cameras else "cam_default"
        if asked not in cameras:
            raise UnknownNameError("camera", asked, cameras, where="env=humanoid_bench")
        return asked

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; goals, which the package draws globally, follow the seed too."""
        super().reset(seed=seed, options=options)
        drawn = int(self.np_random.integers(2**32))
        self._random.seed(drawn)
        self._elapsed, self._return = 0, 0.0
        with global_random(self._random):
            self._env.reset(seed=drawn)
            # A goal that is a body has been moved, but its position is still the last episode's.
            engine().mj_kinematics(self._env.model, self._env.data)
            obs = self._env.task.get_obs()
        return _named(obs), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step; ``info["success"]`` says whether the return has reached the bar."""
        with global_random(self._random):
            obs, reward, terminated, _, _ = self._env.step(np.asarray(action, np.float64))
        self._elapsed += 1
        self._return += float(reward)
        over = self._elapsed >= self.max_episode_steps and not terminated
        info = {"success": self._return >= self.success_bar}
        return _named(obs), float(reward), bool(terminated), over, info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """RGB image ``[256, 256, 3]``, uint8; ``None`` where rendering was not asked for."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = engine().Renderer(self._env.model, _IMAGE, _IMAGE)
        self._renderer.update_scene(self._env.data, camera=self.camera)
        goal = np.asarray(getattr(self._env.task, "goal", ()), np.float64)
        if goal.shape == (3,):
            _draw_goal(self._renderer.scene, goal)
        return self._renderer.render()

    def close(self) -> None:
        """Free the simulator."""
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()


def _draw_goal(scene: Any, position: np.ndarray) -> None:
    """Add a ball to a scene: the goals of reaching and pushing are no part of the model."""
    mujoco = engine()
    size, turn = np.full(3, _GOAL_SIZE), np.eye(3).ravel()
    geom, colour = scene.geoms[scene.ngeom], np.array(_GOAL_COLOUR, np.float32)
    mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_SPHERE, size, position, turn, colour)
    scene.ngeom += 1


def _named(obs: np.ndarray) -> dict[str, np.ndarray]:
    return {"state": np.asarray(obs, np.float32)}
