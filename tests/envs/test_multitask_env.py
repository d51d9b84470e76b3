"""Several tasks as one environment: padding, cropping, indices and errors."""

from functools import partial

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mbrl_flat.envs import dmc, dummy, make_vector, multitask, restore_vector, spec_of, vector_state
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Continuous, EnvSpec, TaskSpec

BASE = partial(dmc.make, action_repeat=10)
TASKS = "pendulum-swingup+reacher-easy"
FACTORY = partial(multitask.make, TASKS, base=BASE, score_range=(0.0, 1000.0))
PENDULUM, REACHER = (
    TaskSpec(name=name, obs_size=obs, action_size=actions, episode_length=100, score_range=(0, 1e3))
    for name, obs, actions in (("pendulum-swingup", 3, 1), ("reacher-easy", 6, 2))
)


def test_the_spec_has_the_sizes_of_the_largest_task_and_lists_all():
    assert spec_of(make_vector(FACTORY, num_envs=1, seed=0)) == EnvSpec(
        obs={"state": (6,), "task": (1,)},
        action=Continuous(dim=2),
        episode_length=100,
        action_repeat=10,
        score_range=(0.0, 1000.0),
        tasks=(PENDULUM, REACHER),
    )


def test_the_published_set_is_of_thirty_different_tasks_that_all_exist():
    assert len(set(multitask.MT30)) == 30
    assert set(multitask.MT30) <= set(dmc.task_names())
    assert multitask.task_list("mt30") == multitask.MT30


@pytest.mark.parametrize("index", [0, 1])
def test_a_task_is_itself_with_zeros_after_it_and_an_index(index):
    task, name = (PENDULUM, REACHER)[index], TASKS.split("+")[index]
    env, alone = FACTORY(seed=3, index=index), BASE(name, seed=3)
    obs, plain = env.reset(seed=5)[0], alone.reset(seed=5)[0]
    for action in (np.array([0.3, -0.8], np.float32), np.array([-1.0, 0.5], np.float32)):
        assert np.array_equal(obs["state"][: task.obs_size], plain["state"])
        assert not obs["state"][task.obs_size :].any()
        assert obs["task"].tolist() == [index]
        obs, reward, *_ = env.step(action)
        plain, expected, *_ = alone.step(action[: task.action_size])
        assert reward == expected


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version.*")
@pytest.mark.filterwarnings("ignore:.*infinity.*")
def test_it_keeps_the_contract_of_gymnasium_and_can_be_resumed():
    env = multitask.make("point+point-terminating", base=dummy.make, seed=0, index=1)
    check_env(env, skip_render_check=True)
    factory = partial(multitask.make, "point+point-terminating", base=dummy.make, index=1)
    first, second = (make_vector(factory, num_envs=2, seed=1) for _ in range(2))
    first.reset()
    obs = first.step(np.full((2, 2), 0.5, np.float32))[0]
    restored = restore_vector(second, vector_state(first))
    assert all(np.array_equal(obs[name], restored[name]) for name in obs)


@pytest.mark.parametrize(
    ("task", "base", "words"),
    [
        ("walker-walk+walker-wlak", BASE, "Unknown task 'walker-wlak' .* mean 'walker-walk'"),
        ("walker-walk+walker-walk", BASE, "does not name different tasks; join"),
        ("walker-walk+", BASE, "does not name different tasks; join"),
        ("point+point-discrete", dummy.make, "point-discrete is none; choose others"),
        ("point", partial(dummy.make, obs="rgb"), "point is none; choose others"),
    ],
)
def test_what_cannot_be_joined_is_refused(task, base, words):
    with pytest.raises(UserError, match=words):
        multitask.make(task, base=base, seed=0)
