"""HumanoidBench itself, where it is installed: every id, and the rewards against their formulas.

The formulas are those of Sferrazza et al., arXiv:2403.10506, written out from the simulator's raw
quantities; nothing of the package's reward code is used.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from mbrl_flat.envs.humanoid_bench import make

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(
        importlib.util.find_spec("humanoid_bench") is None,
        reason="the package humanoid_bench is not installed",
    ),
]

LOCOMOTION = [
    "stand", "walk", "run", "hurdle", "crawl", "maze", "reach", "stair", "slide", "pole",
    "sit_simple", "sit_hard", "balance_simple", "balance_hard",
]  # fmt: skip
WHOLE_BODY = ["door", "basketball", "package"]
HANDS = [
    "cabinet", "room", "powerlift", "cube", "bookshelf_simple", "bookshelf_hard", "window",
    "spoon", "insert_normal", "insert_small",
]  # fmt: skip
TEXTURES = ["push", "truck"]
MANIPULATION = WHOLE_BODY + HANDS + TEXTURES
TASKS = {
    "h1": [*LOCOMOTION, *WHOLE_BODY, *TEXTURES, "highbar_simple"],
    "h1hand": [*LOCOMOTION, *MANIPULATION],
    "h1touch": [*LOCOMOTION, *MANIPULATION],
    "g1": [*LOCOMOTION, *MANIPULATION],
    "h1simplehand": ["stand"],
    "h1strong": ["highbar_hard"],
}
# In a process of its own: g1 changes what others get, and JAX must not have come in by another way.
PROGRAM = """
import json, sys
import numpy as np
from mbrl_flat.envs.humanoid_bench import make

for task in sys.argv[1:]:
    env = make(task, seed=0)
    first, again = env.reset(seed=3)[0]["state"], env.reset(seed=3)[0]["state"]
    rng, finite, steps = np.random.default_rng(0), True, 0
    for steps in range(1, 51):
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        finite &= bool(np.isfinite(obs["state"]).all() and np.isfinite(reward))
        if terminated or truncated:
            env.reset()
    env.close()
    row = {"task": task, "obs": first.size, "actions": env.action_space.shape[0], "steps": steps,
           "same": bool(np.array_equal(first, again)), "finite": finite}
    print(json.dumps(row))
print(json.dumps({"jax": "jax" in sys.modules}))
"""


@pytest.mark.parametrize("robot", TASKS)
def test_every_id_repeats_a_reset_with_a_seed_and_steps_fifty_times(robot):
    ids = [f"{robot}-{task}-v0" for task in TASKS[robot]]

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *ids], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    *rows, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["task"] for row in rows] == ids
    assert all(row["same"] and row["finite"] and row["steps"] == 50 for row in rows), rows
    assert last == {"jax": False}


def gaussian(x, low, high, margin):
    """1 inside the bounds; 0.1 at the margin outside them, or nothing without a margin."""
    distance = max(low - x, x - high, 0.0)
    if distance == 0.0:
        return 1.0
    return float(np.exp(np.log(0.1) * (distance / margin) ** 2)) if margin else 0.0


def linear(x, low, margin):
    """1 from the bound on; falls to nothing over the margin."""
    return float(np.clip(1.0 - (low - x) / margin, 0.0, 1.0))


class State:
    """What the rewards are made of, read from the simulator by name."""

    def __init__(self, env):
        inner = env.unwrapped._env
        self.model, self.data, self.task = inner.model, inner.data, inner.task
        self.pelvis = self.data.qpos[:3]
        self.head = self.data.site("head").xpos[2]
        self.imu = self.data.site("imu").xpos
        self.up = self.data.body("torso_link").xmat[8]
        self.velocity = self.data.sensor("pelvis_subtreelinvel").data
        force = self.data.actuator_force
        self.control = (4.0 + np.mean(np.clip(1.0 - (force / 10.0) ** 2, 0.0, None))) / 5.0
        self.still = np.mean([gaussian(v, 0.0, 0.0, 2.0) for v in self.velocity[:2]])

    def standing(self, bound=1.65, upright=0.9):
        return gaussian(self.head, bound, np.inf, 0.4125) * linear(self.up, upright, 1.9)

    def moving(self, speed):
        return (5.0 * linear(self.velocity[0], speed, speed) + 1.0) / 6.0

    def touches(self, names):
        geoms = [self.model.geom(name).id for name in names]
        return bool(np.isin(self.data.contact.geom, geoms).any())


def stand(s):
    return s.control * s.standing() * s.still


def walk(s):
    return s.control * s.standing() * s.moving(1.0)


def run(s):
    return s.control * s.standing() * s.moving(5.0)


def hurdle(s):
    walls = [f"{side}_barrier_collision" for side in ("left", "right", "behind")]
    penalty = 0.1 if s.touches(walls) else 1.0
    return s.control * s.standing(upright=0.8) * s.moving(5.0) * penalty


def crawl(s):
    posture = np.linalg.norm(s.data.body("pelvis").xquat - np.array([0.75, 0.0, 0.65, 0.0]))
    low = min(gaussian(z, 0.6, 1.0, 1.0) for z in (s.imu[2], s.head))
    parts = 0.1 * s.control + 0.25 * low + 0.4 * s.moving(1.0)
    return (parts + 0.25 * gaussian(posture, 0.0, 0.0, 1.0)) * (abs(s.imu[1]) <= 1.0)


def sit_simple(s):
    chair = s.pelvis - s.data.body("chair").xpos
    on_chair = gaussian(chair[0], -0.19, 0.19, 0.2) * gaussian(chair[1], 0.0, 0.0, 0.1)
    seated = 0.5 * gaussian(s.pelvis[2], 0.68, 0.72, 0.2) + 0.5 * on_chair
    posture = gaussian(s.head - s.imu[2], 0.35, 0.45, 0.3)
    return s.control * s.still * linear(s.up, 0.95, 0.9) * posture * seated


def balance_simple(s):
    return s.control * s.standing(bound=1.65 + 0.37) * s.still


def reach(s):
    distance = np.linalg.norm(s.data.site("left_hand").xpos - s.task.goal)
    effort = np.square(s.data.qvel[:25]).sum()
    near = 5.0 * (distance < 1.0) + 10.0 * (distance < 0.05)
    return 5.0 * s.data.body("pelvis").xmat[8] - 1e-4 * effort + near


@pytest.mark.parametrize(
    "formula", [stand, walk, run, hurdle, crawl, sit_simple, balance_simple, reach]
)
def test_the_reward_is_its_formula(formula):
    """On states of three episodes, of which each starts with a push and one at another place."""
    env = make(f"h1-{formula.__name__}-v0", seed=0)
    rng = np.random.default_rng(1)
    rewards, expected = [], []
    for episode, (x, y) in enumerate([(0.0, 0.0), (0.3, 0.0), (1.0, 0.9)]):
        env.reset(seed=episode)
        inner = env.unwrapped._env
        position, velocity = inner.data.qpos.copy(), inner.data.qvel.copy()
        position[:2] += [x, y] if formula is not balance_simple else 0.0
        velocity[0] = 2.0 * episode
        inner.set_state(position, velocity)
        if formula is reach and episode:
            inner.task.goal = inner.data.site("left_hand").xpos + 0.3 / episode
        for _ in range(40):
            action = 0.3 * rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            rewards.append(env.step(action)[1])
            expected.append(formula(State(env)))

    np.testing.assert_allclose(rewards, expected, rtol=1e-9, atol=1e-12)
    assert np.ptp(rewards) > 0.05
