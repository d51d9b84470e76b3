"""The tasks that TD-MPC2 adds to the suite: rewards worked by hand on states set by hand."""

from typing import Any

import numpy as np
import pytest

from mbrl_flat.envs.dmc import make
from mbrl_flat.envs.dmc_custom import TASKS


def built(domain: str, task: str, *, seed: int = 0) -> Any:
    env = TASKS[domain, task].build(np.random.RandomState(seed))
    env.reset()
    return env


def put(env: Any, *, velocity: dict[str, float] | None = None, **position: float) -> float:
    """Set joints by name, all others to zero; return the reward there."""
    physics = env.physics
    with physics.reset_context():
        physics.data.qpos[:] = 0.0
        for name, value in position.items():
            physics.named.data.qpos[name] = value
        for name, value in (velocity or {}).items():
            physics.named.data.qvel[name] = value
    return env.task.get_reward(physics)


def tall(height: float, bound: float) -> float:
    """A Gaussian tail that is 0.1 at half the bound."""
    return 0.1 ** (max(bound - height, 0.0) / (bound / 2.0)) ** 2


@pytest.mark.parametrize(
    ("velocity", "reward"),
    [(9.0, 1.0), (-9.0, 1.0), (20.0, 1.0), (6.75, 0.75), (-4.5, 0.5), (0.9, 0.1), (0.0, 0.0)],
)
def test_the_pendulum_is_paid_for_its_angular_speed_either_way(velocity, reward):
    env = built("pendulum", "spin")

    assert put(env, velocity={"hinge": velocity}) == pytest.approx(reward, abs=1e-12)


@pytest.mark.parametrize(("task", "full"), [("walk_backwards", 1.0), ("run_backwards", 8.0)])
@pytest.mark.parametrize(("share", "moving"), [(-2, 1.0), (-1, 1.0), (-0.5, 0.5), (0, 0), (1, 0)])
def test_an_upright_walker_is_paid_for_going_backwards(task, full, share, moving):
    env = built("walker", task)

    # Standing straight, the torso is 1.3 m high: above the 1.2 m that count as standing.
    reward = put(env, velocity={"rootx": share * full})

    assert reward == pytest.approx((5.0 * moving + 1.0) / 6.0, abs=1e-9)


def test_a_walker_that_lies_is_paid_little():
    env = built("walker", "walk_backwards")

    reward = put(env, rootz=-0.9, rooty=np.pi / 2.0, velocity={"rootx": -1.0})

    # 0.4 m high and level: upright is a half.
    assert reward == pytest.approx((3.0 * tall(0.4, 1.2) + 0.5) / 4.0, abs=1e-9)


@pytest.mark.parametrize(
    ("speed", "reward"), [(-9.0, 1.0), (-8.0, 1.0), (-2.0, 0.25), (0.0, 0.0), (3.0, 0.0)]
)
def test_the_cheetah_is_paid_for_running_backwards(speed, reward):
    env = built("cheetah", "run_backwards")

    assert put(env, velocity={"rootx": speed}) == pytest.approx(reward, abs=1e-9)


@pytest.mark.parametrize(
    ("speed", "still"), [(0.0, 1.0), (0.5, 1.0), (-0.75, 0.5), (1.0, 0.0), (-3.0, 0.0)]
)
def test_a_cheetah_in_the_air_is_paid_for_staying_where_it_is(speed, still):
    env = built("cheetah", "jump")

    reward = put(env, rootz=1.5, velocity={"rootx": speed})

    assert reward == pytest.approx((5.0 + still) / 6.0, abs=1e-9)


def heights(env: Any) -> dict[str, float]:
    xpos = env.physics.named.data.xpos
    return {body: float(xpos[body, "z"]) for body in ("torso", "ffoot", "bfoot")}


@pytest.mark.parametrize("rootz", [0.0, 0.3, 0.8])
def test_a_jump_is_as_high_as_the_means_of_torso_and_feet(rootz):
    env = built("cheetah", "jump")
    reward = put(env, rootz=rootz, bthigh=0.4)
    z = heights(env)

    up = [tall((z["torso"] + z[foot]) / 2.0, 1.2) for foot in ("ffoot", "bfoot")]
    assert reward == pytest.approx((5.0 * sum(up) / 2.0 + 1.0) / 6.0, abs=1e-9)


@pytest.mark.parametrize(("task", "raised"), [("run_front", "bfoot"), ("run_back", "ffoot")])
@pytest.mark.parametrize(("speed", "moving"), [(7.0, 1.0), (3.0, 0.5), (0.0, 0.0), (-6.0, 0.0)])
def test_a_cheetah_on_one_foot_is_paid_for_its_speed(task, raised, speed, moving):
    env = built("cheetah", task)
    reward = put(env, rootz=0.2, rooty=0.5, velocity={"rootx": speed})
    z = heights(env)

    up = (3.0 * tall(z[raised], 1.2) + 2.0 * tall(z["torso"], 1.2)) / 5.0
    assert reward == pytest.approx(up * (5.0 * moving + 1.0) / 6.0, abs=1e-9)


@pytest.mark.parametrize(
    ("speed", "reward"), [(-1.5, 1.0), (-1.0, 1.0), (-0.5, 0.5), (-0.1, 0.1), (0.0, 0.0), (2.0, 0)]
)
def test_the_hopper_is_paid_for_hopping_backwards_while_it_stands(speed, reward):
    env = built("hopper", "hop_backwards")

    assert put(env, velocity={"rootx": speed}) == pytest.approx(reward, abs=1e-9)
    assert put(env, hip=-0.5, knee=2.6, velocity={"rootx": speed}) == 0.0


@pytest.mark.parametrize(
    ("drop", "velocity", "reward"),
    [
        # The distance is measured to the inside of the cup, where the ball is worth nothing.
        (0.0, (6.0, 0.0), 0.0),
        (0.5, (6.0, 0.0), 1.0),
        (0.5, (0.0, 0.0), 1.0 / 3.0),
        (0.25, (0.0, -3.0), (0.5 + 2.0 * 0.5) / 3.0),
        (0.125, (1.8, 2.4), (0.25 + 2.0 * 0.5) / 3.0),
    ],
)
def test_the_ball_is_paid_for_its_speed_and_its_distance_from_the_cup(drop, velocity, reward):
    env = built("ball_in_cup", "spin")
    put(env)
    down = float(env.physics.ball_to_target()[1]) - drop
    moving = dict(zip(("ball_x", "ball_z"), velocity, strict=True))

    assert put(env, ball_z=down, velocity=moving) == pytest.approx(reward, abs=1e-9)


def test_nine_balls_in_ten_start_inside_the_cup():
    env = built("ball_in_cup", "spin")
    inside, free = [], []
    for _ in range(300):
        env.reset()
        inside.append(env.physics.in_target())
        free.append(env.physics.data.ncon == 0)

    # Four standard errors around 0.9; a position drawn anywhere may be inside as well.
    assert 0.83 < np.mean(inside) < 0.98
    assert all(free)


@pytest.mark.parametrize(("task", "size"), [("three_easy", 0.05), ("three_hard", 0.015)])
def test_a_reacher_of_three_links_reaches_what_their_lengths_allow(task, size):
    env = built("reacher", task)
    physics = env.physics
    assert physics.model.nq == physics.model.nu == 3

    for angles, tip in [
        ((0.0, 0.0, 0.0), (0.27, 0.0)),
        ((np.pi / 2, 0.0, 0.0), (0.0, 0.27)),
        ((0.0, np.pi / 3, -np.pi / 3), (0.225, 0.09 * np.sin(np.pi / 3))),
    ]:
        put(env, **dict(zip(("shoulder", "elbow", "wrist"), angles, strict=True)))
        np.testing.assert_allclose(physics.named.data.geom_xpos["finger", :2], tip, atol=1e-12)

    for distance, reward in [(size + 0.009, 1.0), (size + 0.011, 0.0)]:
        physics.named.model.geom_pos["target", :2] = [0.27 - distance, 0.0]
        assert put(env) == reward


def test_each_motor_of_the_reacher_moves_the_joint_of_its_name():
    model = built("reacher", "three_easy").physics.named.model

    assert list(model.actuator_trnid[:, 0]) == [0, 1, 2]
    np.testing.assert_allclose(np.rad2deg(model.jnt_range[["elbow", "wrist"]]), [[-80, 80]] * 2)


@pytest.mark.parametrize(
    ("task", "obs", "actions"),
    [
        ("walker-run_backwards", 24, 6),
        ("cheetah-jump", 17, 6),
        ("hopper-hop_backwards", 15, 4),
        ("pendulum-spin", 3, 1),
        ("ball_in_cup-spin", 8, 2),
        ("reacher-three_hard", 8, 3),
    ],
)
def test_shapes_and_lengths_are_those_of_the_suite(task, obs, actions):
    env = make(task, seed=0)

    assert env.observation_space["state"].shape == (obs,)
    assert env.action_space.shape == (actions,)
    assert env.get_wrapper_attr("episode_length") == 500


def test_an_episode_of_a_custom_task_is_a_function_of_the_seed():
    env, other = make("cup-spin", seed=0), make("ball_in_cup-spin", seed=7)

    assert np.array_equal(env.reset(seed=3)[0]["state"], other.reset(seed=3)[0]["state"])
    assert not np.array_equal(env.reset(seed=3)[0]["state"], env.reset(seed=4)[0]["state"])
