"""The adapter of HumanoidBench, on a stand-in that has the faults of the package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mbrl_flat.envs import humanoid_bench, make_vector, spec_of
from mbrl_flat.envs.humanoid_bench import make, task_names
from mbrl_flat.envs.humanoid_bench_compat import COMMIT, SHADOW_SIZE, load_model, load_package
from mbrl_flat.errors import MissingExtraError, UserError

POLICIES = "humanoid_bench.mjx.flax_to_torch"
STAND_IN = Path(__file__).parent / "humanoid_bench_stand_in.py"
MODEL = """
<mujoco>
  <visual><quality shadowsize="16384"/></visual>
  <asset>
    <texture name="wood" type="2d" file="kitchen-wood.png"/><material name="wood" texture="wood"/>
  </asset>
  <worldbody>
    <light pos="0 0 4"/>
    <camera name="cam_default" pos="0 -4 1" xyaxes="1 0 0 0 0 1"/>
    <camera name="cam_maze" pos="0 0 9"/>
    <geom type="plane" size="5 5 .1" material="wood"/>
    <body pos="0 0 0">
      <joint name="up" type="slide" axis="0 0 1" ref="0"/><geom size=".3" mass="1"/>
    </body>
    <body pos="1 1 0"><site name="destination"/></body>
  </worldbody>
  <actuator><motor joint="up" ctrlrange="-2 6"/></actuator>
</mujoco>
"""
BROKEN = "<mujoco><default class='main'/><default class='kettle'/></mujoco>"


@pytest.fixture(autouse=True)
def package(monkeypatch, tmp_path):
    """The stand-in under the names of the package's modules; its models lie in ``tmp_path``."""
    monkeypatch.setitem(sys.modules, POLICIES, ModuleType(POLICIES))
    monkeypatch.delitem(sys.modules, POLICIES)
    monkeypatch.setattr(humanoid_bench, "_families", set())
    folder = tmp_path / "assets" / "envs"
    folder.mkdir(parents=True)
    for robot, control in (("h1", "pos"), ("g1", "torque")):
        for task in ("stand", "reach", "package", "highbar"):
            (folder / f"{robot}_{control}_{task}.xml").write_text(MODEL)
    (folder / "h1_pos_kitchen.xml").write_text(BROKEN)
    spec = importlib.util.spec_from_file_location("humanoid_bench.env", STAND_IN)
    module = importlib.util.module_from_spec(spec)
    policies = ModuleType(POLICIES)
    policies.TorchModel = policies.TorchPolicy = object
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, POLICIES, policies)
        spec.loader.exec_module(module)
    module.__file__ = str(tmp_path / "env.py")
    monkeypatch.setitem(sys.modules, "humanoid_bench.env", module)
    monkeypatch.setitem(sys.modules, "humanoid_bench.dmc_deps.dmc_sizes", module)
    return module


def first_obs(env, seed=None):
    return env.reset(seed=seed)[0]["state"]


@pytest.mark.filterwarnings("ignore:.*infinity.*")
def test_the_checker_of_gymnasium_is_content():
    check_env(make("h1-reach-v0", seed=0).unwrapped, skip_render_check=True)


def test_a_task_is_made_without_a_gl_context_and_prints_nothing(capsys):
    assert make("h1-stand-v0", seed=0).render() is None
    assert capsys.readouterr().out == ""


def test_the_module_that_needs_jax_is_never_imported():
    load_package()

    assert not hasattr(sys.modules[POLICIES], "__file__")
    assert sys.modules[POLICIES].TorchModel is object


def test_only_fields_that_the_engine_has_stay_in_the_tables_of_sizes(package):
    make("h1-stand-v0", seed=0)

    assert package.array_sizes == {
        "mjmodel": {"body_pos": ("nbody", 3)},
        "mjdata": {"qpos": ("nq",)},
    }


@pytest.mark.parametrize("task", ["stand", "reach", "package"])
def test_a_reset_is_a_function_of_the_seed_goals_included(task):
    env, other = make(f"h1-{task}-v0", seed=0), make(f"h1-{task}-v0", seed=9)
    first = first_obs(env, seed=3)

    assert np.array_equal(first, first_obs(env, seed=3))
    assert np.array_equal(first, first_obs(other, seed=3))
    assert not np.array_equal(first, first_obs(env, seed=4))
    assert len({first_obs(env).tobytes() for _ in range(5)}) == 5


def test_the_first_observation_shows_the_goal_of_this_episode():
    env = make("h1-package-v0", seed=0)

    for _ in range(3):
        goal = first_obs(env)[-3:]
        np.testing.assert_allclose(goal, env.step(np.zeros(1, np.float32))[0]["state"][-3:])


def test_what_a_task_changes_in_its_first_reset_holds_from_the_first_episode_on():
    env = make("h1-highbar-v0", seed=0)

    assert np.array_equal(first_obs(env, seed=1), np.zeros(2, np.float32))
    assert np.array_equal(first_obs(env, seed=2), np.zeros(2, np.float32))


def test_the_global_generator_of_numpy_stays_where_it_was():
    before = np.random.get_state()[1:]  # noqa: NPY002 - the stream is what is meant

    env = make("h1-reach-v0", seed=0)
    env.reset(seed=1)
    env.step(np.zeros(1, np.float32))

    after = np.random.get_state()[1:]  # noqa: NPY002
    assert np.array_equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_an_episode_that_was_interrupted_goes_on_elsewhere():
    env, other = make("h1-reach-v0", seed=0), make("h1-reach-v0", seed=5)
    env.reset(seed=1)
    for action in ([0.3], [-0.2], [0.9]):
        obs = env.step(np.array(action, np.float32))[0]["state"]

    assert np.array_equal(other.restore(env.resume_state())["state"], obs)


def test_actions_span_the_ranges_of_the_actuators(monkeypatch):
    env = make("h1-stand-v0", seed=0)
    env.reset()
    taken = []
    inner = env.unwrapped._env
    monkeypatch.setattr(inner, "do_simulation", lambda control, frames: taken.append(control[0]))
    for action in (-1.0, 0.0, 1.0):
        env.step(np.array([action], np.float32))

    assert taken == [-2.0, 2.0, 6.0]


def test_a_missing_texture_is_flat_and_shadows_are_small():
    model = make("h1-stand-v0", seed=0).unwrapped._env.model

    assert model.vis.quality.shadowsize == SHADOW_SIZE
    assert model.ntex == 1
    assert len(np.unique(model.tex_data[: 32 * 32 * 3].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("name", ["floating_base_joint", "free_base"])
def test_the_root_joint_has_the_name_that_rewards_look_for(tmp_path, name):
    body = f"<body><freejoint name='{name}'/><geom size='.1'/></body>"
    box = "<body><freejoint name='free_package'/><geom size='.1'/></body>"
    path = tmp_path / "robot.xml"
    path.write_text(f"<mujoco><worldbody>{body}{box}</worldbody></mujoco>")

    model = load_model(str(path))

    assert [model.joint(i).name for i in range(2)] == ["free_base", "free_package"]


def test_a_model_that_the_engine_refuses_is_named():
    with pytest.raises(UserError, match=r"h1_pos_kitchen\.xml .* does not compile on mujoco 3"):
        make("h1-kitchen-v0", seed=0)


def test_a_fall_terminates_and_the_time_limit_truncates(monkeypatch):
    env = make("h1-stand-v0", seed=0)
    env.reset(seed=0)
    fallen = env.step(np.array([-1.0], np.float32))
    assert fallen[2:4] == (True, False)

    monkeypatch.setattr(env.unwrapped._env, "step", lambda _: (np.zeros(2), 0.5, False, False, {}))
    env.reset(seed=0)
    rows = [env.step(np.zeros(1, np.float32)) for _ in range(20)]

    assert [row[2:4] for row in rows] == [(False, False)] * 19 + [(False, True)]
    # The bar of 5 is reached by the tenth reward of 0.5.
    assert [row[4]["success"] for row in rows] == [False] * 9 + [True] * 11


@pytest.mark.parametrize(("repeat", "length"), [(1, 20), (3, 7)])
def test_the_success_bar_is_one_of_the_normalised_score(repeat, length):
    def factory(*, seed, render):
        return make("h1-stand-v0", seed=seed, render=render, action_repeat=repeat)

    spec = spec_of(make_vector(factory, num_envs=2, seed=0))

    assert spec.score_range == (0.0, 5.0)
    assert (spec.episode_length, spec.action_repeat) == (length, repeat)


def test_g1_and_the_h1_robots_do_not_share_a_process():
    make("h1-stand-v0", seed=0)
    make("h1-reach-v0", seed=0)

    with pytest.raises(UserError, match=r"either g1 or the h1 robots .* start another process"):
        make("g1-stand-v0", seed=0)


def test_names_are_those_whose_model_is_there():
    names = set(task_names())

    assert {"h1-stand-v0", "h1-kitchen-v0", "g1-reach-v0"} <= names
    assert "g1-kitchen-v0" not in names


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("h2-stand-v0", "Unknown robot 'h2' for env=humanoid_bench; choose one of: g1, h1"),
        ("h1-stnd-v0", "Unknown task 'h1-stnd-v0' for env=humanoid_bench; did you mean 'h1-stand"),
        ("g1-kitchen-v0", "Unknown task 'g1-kitchen-v0' for env=humanoid_bench"),
        ("walk", "Unknown robot 'walk' for env=humanoid_bench; choose one of: g1, h1"),
    ],
)
def test_an_unknown_robot_or_task_names_the_nearest(task, message):
    with pytest.raises(UserError) as caught:
        make(task, seed=0)
    assert str(caught.value).startswith(message)


def test_a_camera_that_does_not_exist_names_those_that_do():
    with pytest.raises(UserError, match=r"camera 'cam_mase' .* did you mean 'cam_maze'"):
        make("h1-stand-v0", seed=0, camera="cam_mase")


def test_the_camera_is_the_tasks_own_where_the_model_has_it():
    assert make("h1-stand-v0", seed=0).unwrapped.camera == "cam_default"
    assert make("h1-package-v0", seed=0).unwrapped.camera == "cam_default"
    assert make("h1-stand-v0", seed=0, camera="cam_maze").unwrapped.camera == "cam_maze"


def test_without_the_package_the_repository_and_the_commit_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "humanoid_bench.env", None)

    with pytest.raises(MissingExtraError) as caught:
        make("h1-stand-v0", seed=0)
    assert "https://github.com/carlosferrazza/humanoid-bench" in str(caught.value)
    assert COMMIT[:7] in str(caught.value)


@pytest.mark.sim
@pytest.mark.parametrize("camera", [None, "cam_maze"])
def test_an_image_shows_something_and_the_goal(camera):
    env = make("h1-reach-v0", seed=0, render=True, camera=camera)
    env.reset(seed=1)
    env.unwrapped._env.task.goal = np.array([0.0, -1.0, 1.0])
    with_goal = env.render()
    env.unwrapped._env.task.goal = np.array([0.0, -1.0, -9.0])
    without = env.render()
    env.close()

    assert with_goal.shape == (256, 256, 3)
    assert with_goal.dtype == np.uint8
    assert with_goal.std() > 5
    assert not np.array_equal(with_goal, without)
