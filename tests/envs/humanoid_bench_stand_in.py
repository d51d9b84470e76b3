"""A package of two robots and a few tasks that has the faults of HumanoidBench, and no others.

Loaded by ``test_humanoid_bench.py`` under the name ``humanoid_bench.env``, where the package itself
may be absent. A robot is a body that slides up and down; its models are written by the test.
"""

from pathlib import Path
from typing import ClassVar

import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import Box

# In the package this module needs JAX; here there is none at all.
from humanoid_bench.mjx.flax_to_torch import TorchModel, TorchPolicy

POLICIES = (TorchModel, TorchPolicy)
STAND_HEIGHT = 1.65
# Fields that current engines have, and one of each struct that they have lost.
array_sizes = {
    "mjmodel": {"body_pos": ("nbody", 3), "tex_rgb": ("ntexdata",)},
    "mjdata": {"qpos": ("nq",), "qM": ("nM",)},
}


class Task:
    """Stands for as long as it is up."""

    kwargs: ClassVar[dict[str, str]] = {}
    camera_name = "cam_default"
    max_episode_steps = 20
    success_bar = 5.0
    size = 2

    def __init__(self, robot=None, env=None, **kwargs):
        if robot == "g1":
            # Every robot made later in the process is judged by it.
            globals()["STAND_HEIGHT"] = 1.28
        self._env = env

    def get_obs(self):
        return np.concatenate([self._env.data.qpos, self._env.data.qvel])

    def get_reward(self):
        return float(self._env.data.qpos[0] / STAND_HEIGHT)

    def step(self, action):
        low, high = self._env.low, self._env.high
        self._env.do_simulation(low + (action + 1.0) / 2.0 * (high - low), self._env.frame_skip)
        return self.get_obs(), self.get_reward(), self._env.data.qpos[0] < 0.2, False, {}

    def reset_model(self):
        return self.get_obs()


class Reach(Task):
    """Draws its goal from the global generator."""

    size = 5

    def get_obs(self):
        return np.concatenate([super().get_obs(), self.goal])

    def reset_model(self):
        self.goal = np.random.uniform(-2.0, 2.0, 3)  # noqa: NPY002 - the fault
        return self.get_obs()


class Package(Task):
    """Moves its goal, a body, after positions have been computed."""

    camera_name = "cam_that_no_model_has"
    size = 5

    def get_obs(self):
        return np.concatenate([super().get_obs(), self._env.data.site("destination").xpos])

    def reset_model(self):
        place = np.random.uniform(-2.0, 2.0, 2)  # noqa: NPY002 - the fault
        self._env.model.body_pos[-1] = [*place, 0.0]
        return self.get_obs()


class HighBar(Task):
    """Switches the noise of resets off, for all resets but the first."""

    def reset_model(self):
        self._env.randomness = 0.0
        return super().reset_model()


ROBOTS = {"h1": "h1", "g1": "g1"}
TASKS = {"stand": Task, "reach": Reach, "package": Package, "highbar": HighBar, "kitchen": Task}


class HumanoidEnv(MujocoEnv):
    """One task."""

    metadata: ClassVar = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 50}

    def __init__(self, robot=None, control=None, task=None, render_mode="rgb_array"):
        if render_mode is not None:
            raise RuntimeError("a GL context was asked for")
        print("No randomness in this env.")
        kind, size = TASKS[task], TASKS[task](robot, None).size
        path = Path(__file__).parent / "assets" / "envs" / f"{robot}_{control}_{task}.xml"
        space = Box(-np.inf, np.inf, (size,), np.float64)
        MujocoEnv.__init__(self, str(path), 10, space, render_mode=render_mode)
        self.low, self.high = self.action_space.low, self.action_space.high
        self.action_space = Box(-1.0, 1.0, self.action_space.shape, np.float32)
        self.task = kind(robot, self)
        self.randomness = 0.01
        for struct, live in (("mjmodel", self.model), ("mjdata", self.data)):
            for name in array_sizes[struct]:
                getattr(live, name)

    def step(self, action):
        return self.task.step(action)

    def reset_model(self):
        mujoco.mj_resetData(self.model, self.data)
        noise = self.np_random.uniform(-self.randomness, self.randomness, self.model.nq)
        self.set_state(self.data.qpos + noise, self.data.qvel)
        return self.task.reset_model()

    def render(self):
        # Current releases take the mode alone.
        return self.mujoco_renderer.render("rgb_array", None, "cam_default")
