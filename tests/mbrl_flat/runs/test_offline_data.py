"""Recorded runs as data: what is read, padded, refused, and drawn with which task."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UserError
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.offline_data import fill_replay, recorded_episodes
from mbrl_flat.runtime.files import save_atomically
from mbrl_flat.specs import Continuous, EnvSpec, TaskSpec
from mbrl_flat.training.checkpoint import CheckpointFolder, load_safely

TASKS = tuple(
    TaskSpec(name=name, obs_size=obs, action_size=actions, episode_length=10)
    for name, obs, actions in (("small", 2, 1), ("large", 4, 3))
)
SPEC = EnvSpec(
    obs={"state": (4,), "task": (1,)}, action=Continuous(dim=3), episode_length=10, tasks=TASKS
)


def record(
    folder: Path, task: TaskSpec, lengths, *, num_envs=1, capacity=200, last_open=True, mark=1.0
):
    """A run's folder: episodes whose slot t holds ``mark * (100 * episode + t + 1)``."""
    spec = EnvSpec(
        obs={"state": (task.obs_size,)},
        action=Continuous(dim=task.action_size),
        episode_length=task.episode_length,
    )
    replay = Replay(spec, capacity, num_envs=num_envs)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    for number, length in enumerate(lengths):
        env_index = number % num_envs
        numbers = mark * (100.0 * number + 1.0 + np.arange(length + 1))
        replay.begin(env_index, {"state": np.full(task.obs_size, numbers[0])})
        for t in range(length):
            end = t + 1 == length and not (last_open and number + 1 == len(lengths))
            action = np.full(task.action_size, numbers[t])
            state = {"state": np.full(task.obs_size, numbers[t + 1])}
            replay.add(
                env_index, action, numbers[t], state, terminated=t == 2 == length - 1, done=end
            )
        checkpoints.save_latest({}, replay)
    settings = {
        "names": {"task": task.name},
        "env": {},
        "replay_capacity": capacity,
        "num_envs": num_envs,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def filled(tmp_path, *runs, spec=SPEC, capacity=500, **names):
    replay = Replay(spec, capacity)
    config = RunConfig(offline_data=[str(run) for run in runs], names=names)
    fill_replay(replay, config, spec, tmp_path)
    return replay


def drawn(replay, length=3):
    return replay.sample(400, length, rng=np.random.default_rng(0))


@pytest.mark.parametrize("num_envs", [1, 2])
def test_slices_have_the_index_and_the_zeros_of_their_task(tmp_path, num_envs):
    small = record(tmp_path / "a", TASKS[0], [5, 4, 6, 5], num_envs=num_envs)
    large = record(tmp_path / "b", TASKS[1], [5, 5, 3], mark=-1.0)
    batch = drawn(filled(tmp_path, small, large))
    index = batch.obs["task"][..., 0]
    assert (index == index[:, :1]).all()
    assert set(index[:, 0].tolist()) == {0.0, 1.0}
    for row, task in enumerate(index[:, 0].long().tolist()):
        own, sign = TASKS[task], (1.0, -1.0)[task]
        state, action = batch.obs["state"][row], batch.action[row]
        assert not state[:, own.obs_size :].any()
        assert not action[:, own.action_size :].any()
        assert (sign * state[:, : own.obs_size] > 0.0).all()
        assert (state[1:, 0] - state[:-1, 0] == sign).all()
        assert (action[:, 0] == state[:-1, 0]).all()
        assert (batch.reward[row] == state[:-1, 0]).all()


def test_only_complete_episodes_count_and_terminations_are_kept(tmp_path):
    run = record(tmp_path / "a", TASKS[0], [5, 3, 6])
    single = EnvSpec(obs={"state": (2,)}, action=Continuous(dim=1), episode_length=10)
    replay = filled(tmp_path, run, spec=single, task="small")
    batch = drawn(replay)
    assert len(replay) == 6 + 4
    assert batch.reward.max() < 200.0
    ended = batch.terminated[:, -1] == 1.0
    assert ((batch.reward[:, -1] == 103.0) == ended).all()
    assert ended.any()


def test_episodes_that_the_ring_has_begun_to_overwrite_are_left_out(tmp_path):
    run = record(tmp_path / "a", TASKS[0], [9, 9, 9, 9], capacity=25, last_open=False)
    single = EnvSpec(obs={"state": (2,)}, action=Continuous(dim=1), episode_length=10)
    batch = drawn(filled(tmp_path, run, spec=single, task="small"))
    assert set((batch.reward // 100).unique().tolist()) == {2.0, 3.0}


def test_draws_are_uniform_over_all_transitions(tmp_path):
    small = record(tmp_path / "a", TASKS[0], [9] * 9, last_open=False)
    large = record(tmp_path / "b", TASKS[1], [9] * 3, last_open=False)
    replay = filled(tmp_path, small, large)
    index = replay.sample(4000, 3, rng=np.random.default_rng(0)).obs["task"][:, 0, 0]
    assert float(index.mean()) == pytest.approx(0.25, abs=0.03)


def test_what_is_missing_or_of_another_shape_is_told_in_one_sentence(tmp_path):
    small = record(tmp_path / "a", TASKS[0], [5, 5])
    fill = partial(filled, tmp_path, small)
    with pytest.raises(UserError, match="no complete episode of large in offline_data"):
        fill()
    short = record(tmp_path / "b", TASKS[1], [5])
    with pytest.raises(UserError, match="no complete episode of large in offline_data"):
        fill(short)
    other = TaskSpec(name="large", obs_size=2, action_size=1, episode_length=10)
    with pytest.raises(UserError, match="recorded 2 observations and 1 actions, and large has 4"):
        fill(record(tmp_path / "c", other, [5, 5]))
    with pytest.raises(UserError, match=r"do not fit into a replay of .* raise replay_capacity"):
        fill(capacity=3)
    with pytest.raises(UserError, match=r"There is no run at .*: .*config.yaml is missing"):
        filled(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pieces", [{"name": "../../../a/checkpoints/replay/000000.pt"}]),
        ("pieces", [{"name": 3}]),
        ("pieces", 7),
        ("replay", {}),
        ("replay", None),
    ],
)
def test_a_checkpoint_of_other_content_is_refused(tmp_path, key, value):
    run = record(tmp_path / "a", TASKS[0], [5, 5])
    latest = CheckpointFolder(run / "checkpoints").latest
    save_atomically(load_safely(latest) | {key: value}, latest)
    with pytest.raises(UserError, match=r"latest\.pt"):
        filled(tmp_path, run)
    with pytest.raises(UserError, match=r"latest\.pt"):
        recorded_episodes(run)


@pytest.mark.parametrize(
    "change", [{"names": None}, {"names": {}}, {"env": 3}, {"replay_capacity": "x"},
               {"num_envs": None}, {"replay_capacity": -(2**62)}]
)  # fmt: skip
def test_a_configuration_of_other_content_is_refused(tmp_path, change):
    run = record(tmp_path / "a", TASKS[0], [5, 5])
    file = run / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    for read in (partial(filled, tmp_path, run), partial(recorded_episodes, run)):
        with pytest.raises(UserError, match=r"is damaged|does not fit|capacity must"):
            read()
