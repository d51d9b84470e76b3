"""Images as observations."""

from functools import partial

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mbrl_flat.envs import dmc, dummy, make_vector, restore_vector, spec_of, vector_state
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Continuous, EnvSpec

POINT = partial(dummy.make, "point", obs="rgb")


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version.*")
def test_the_checker_of_gymnasium_is_content():
    check_env(POINT(seed=0), skip_render_check=True)


def test_the_spec_says_that_entries_are_stacked_images():
    assert spec_of(make_vector(POINT, num_envs=1, seed=0)) == EnvSpec(
        obs={"rgb": (9, 64, 64)},
        action=Continuous(dim=2),
        episode_length=50,
        images=frozenset({"rgb"}),
        frame_stack=3,
    )


def test_an_observation_joins_the_newest_images_of_its_own_episode():
    env = POINT(seed=0)
    for _ in range(2):
        obs, _ = env.reset()
        images = [env.unwrapped.draw(64).transpose(2, 0, 1)] * 3
        assert np.array_equal(obs["rgb"], np.concatenate(images))
        for _ in range(4):
            obs = env.step(np.array([1.0, -1.0], np.float32))[0]
            images = [*images[1:], env.unwrapped.draw(64).transpose(2, 0, 1)]
            assert np.array_equal(obs["rgb"], np.concatenate(images))


def test_restored_environments_go_on_bit_for_bit():
    envs, twins = (make_vector(POINT, num_envs=2, seed=3) for _ in range(2))
    envs.reset()
    envs.action_space.seed(0)
    for _ in range(7):
        current = envs.step(envs.action_space.sample())[0]["rgb"].copy()
    assert np.array_equal(restore_vector(twins, vector_state(envs))["rgb"], current)
    action = envs.action_space.sample()
    assert np.array_equal(envs.step(action)[0]["rgb"], twins.step(action)[0]["rgb"])


@pytest.mark.parametrize(
    ("make", "setting", "message"),
    [
        (dummy.make, {"obs": "pixels"}, "Unknown obs 'pixels' for env=dummy"),
        (dmc.make, {"obs": "rbg"}, "Unknown obs 'rbg' for env=dmc; did you mean 'rgb'"),
        (dmc.make, {"camera": "bac"}, "camera 'bac' for task 'walker-walk'; did you mean 'back'"),
        (dmc.make, {"camera": 7}, "Unknown camera '7' for task 'walker-walk'; choose one of: 0, 1"),
        (dummy.make, {"obs": "rgb", "frame_stack": 0}, "env.frame_stack must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, setting, message):
    task = "walker-walk" if make is dmc.make else "point"
    with pytest.raises(UserError, match=message):
        make(task, seed=0, **setting)


def test_a_camera_is_named_or_counted_and_quadrupeds_have_one_of_their_own():
    def camera(task, **settings):
        return dmc.make(task, seed=0, **settings).unwrapped.camera

    assert camera("walker-walk") == 0
    assert camera("walker-walk", camera="back") == camera("walker-walk", camera=1) == 1
    assert camera("quadruped-walk") == 2


def test_without_a_library_to_render_with_the_packages_are_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(UserError, match=r"EGL or OSMesa.*libegl1 libopengl0 libosmesa6"):
        dmc.make("walker-walk", seed=0, obs="rgb")


@pytest.mark.parametrize(
    ("has", "chosen"),
    [
        ({"EGL", "OpenGL", "OSMesa"}, "egl"),
        ({"EGL", "GL"}, "egl"),
        ({"EGL", "OSMesa"}, "osmesa"),
        ({"OSMesa"}, "osmesa"),
    ],
)
def test_the_library_that_the_machine_has_is_chosen(has, chosen, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: "lib.so" if name in has else None)
    dmc.choose_renderer()
    assert dmc.os.environ["MUJOCO_GL"] == chosen


@pytest.mark.sim
@pytest.mark.parametrize("task", ["cartpole-swingup", "walker-walk", "quadruped-walk", "dog-run"])
def test_a_task_of_the_suite_is_seen_from_a_camera(task):
    env, plain = (dmc.make(task, seed=0, obs="rgb", fast_rendering=fast) for fast in (True, False))
    first, other = env.reset(seed=1)[0]["rgb"], plain.reset(seed=1)[0]["rgb"]
    assert env.observation_space["rgb"].contains(first)
    assert first.std() > 5
    # Without shadows and reflections the image is another one: no default, and in the run's name.
    assert not np.array_equal(first, other)
    action = np.ones(env.action_space.shape, np.float32)
    moved = env.step(action)[0]["rgb"]
    assert np.array_equal(moved[:6], first[3:])
    assert not np.array_equal(moved[6:], first[6:])
    again = env.reset(seed=1)[0]["rgb"]
    assert np.array_equal(again, first)
    env.close()
    plain.close()


def test_a_renderer_that_needs_a_screen_is_refused_without_one(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setattr(dmc.sys, "platform", "linux")

    with pytest.raises(UserError, match=r"MUJOCO_GL=glfw draws to a screen.*MUJOCO_GL=osmesa"):
        dmc.choose_renderer()


def test_errors_of_the_renderer_say_what_to_install_and_others_pass(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")

    message = r"MUJOCO_GL=egl \(RuntimeError: no OpenGL\).*osmesa6"
    with pytest.raises(UserError, match=message), dmc.explained_rendering():
        raise RuntimeError("no OpenGL")
    with pytest.raises(RuntimeError, match="out of memory"), dmc.explained_rendering():
        raise RuntimeError("out of memory")
