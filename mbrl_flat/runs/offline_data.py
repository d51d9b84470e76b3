"""Learn from the replays of earlier runs alone: nothing is collected, and a step is an update.

Every run that has a checkpoint is a dataset of its task: its complete episodes are put, one after
the other, into the replay of the new run, padded to the sizes of the largest task. Subsequences
are drawn uniformly over all transitions of all tasks, as the published TD-MPC2 does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import UnknownNameError, UserError
from mbrl_flat.runs.config import RunConfig
from mbrl_flat.runs.loading import refused_if_unfit
from mbrl_flat.runtime.files import check_inside, write_text_atomically
from mbrl_flat.runtime.plain_files import read_yaml
from mbrl_flat.specs import TASK, Continuous, EnvSpec, TaskSpec
from mbrl_flat.training.checkpoint import CheckpointFolder, load_safely

EpisodeArrays = dict[str, np.ndarray]
"""``state`` ``[T + 1, n]``, ``action`` ``[T, A]``, ``reward`` and ``terminated`` ``[T]``."""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What one run gave.

    Attributes:
        run: Its folder.
        task: Its task.
        episodes: Complete episodes.
        transitions: Transitions in them.
        return_mean: Their mean return.
    """

    run: str
    task: str
    episodes: int
    transitions: int
    return_mean: float


def check_offline(config: RunConfig, spec: EnvSpec) -> None:
    """Refuse settings that do not go with learning offline, or that need it.

    Args:
        config: The run's configuration.
        spec: Shapes of its environment.

    Raises:
        UserError: If there are several tasks and no data, or several environments.
    """
    if spec.tasks and not config.offline_data:
        raise UserError(
            "Several tasks are learned from the replays of earlier runs; name their folders by "
            "offline_data=[runs/A,runs/B]."
        )
    if config.offline_data and config.num_envs != 1:
        raise UserError(
            f"Nothing is collected with offline_data, but num_envs={config.num_envs} was given; "
            f"leave it out."
        )
    if config.offline_data and (spec.images or not isinstance(spec.action, Continuous)):
        raise UserError(
            "offline_data takes tasks with vector observations and continuous actions; choose "
            "another env.task."
        )


def fill_replay(replay: Replay, config: RunConfig, spec: EnvSpec, folder: Path) -> None:
    """Put the episodes of earlier runs into the replay, and say in ``data.json`` what they are.

    Args:
        replay: An empty one of the new run.
        config: The new run's configuration.
        spec: Shapes of its environment.
        folder: The new run's folder.

    Raises:
        UserError: If a folder is no run or of another task or shape, a task has no data, or the
            replay is too small.
    """
    known = spec.tasks or (_single_task(config, spec),)
    found = []
    for run in _folders(config.offline_data):
        settings = _settings(run)
        index = _index_of(settings, known, run, spec)
        with refused_if_unfit(run / "checkpoints" / "latest.pt"):
            episodes = list(_episodes(run, settings, known[index]))
        for episode in episodes:
            _put(replay, episode, index, spec)
        found.append(_summary(run, known[index].name, episodes))
    missing = [t.name for t in known if not any(s.task == t.name and s.episodes for s in found)]
    if missing:
        raise UserError(
            f"There is no complete episode of {', '.join(missing)} in offline_data; add a run of "
            f"it, or leave it out of env.task."
        )
    write_text_atomically(
        folder / "data.json", json.dumps([asdict(row) for row in found], indent=2) + "\n"
    )


def _single_task(config: RunConfig, spec: EnvSpec) -> TaskSpec:
    """The task of an environment that has but one."""
    return TaskSpec(
        name=config.names.get("task", ""),
        obs_size=sum(shape[0] for shape in spec.obs.values()),
        action_size=spec.action.size,
        episode_length=spec.episode_length,
    )


def _folders(patterns: Sequence[str]) -> list[Path]:
    """Folders that names and patterns stand for, each once."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = sorted(glob(pattern))  # noqa: PTH207 - patterns may be absolute
        if not paths:
            raise UserError(f"There is no run at {pattern}, which offline_data names.")
        found.update(dict.fromkeys(Path(path) for path in paths))
    return list(found)


def _settings(run: Path) -> Mapping[str, Any]:
    """Read the configuration of a run."""
    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"There is no run at {run}: {file} is missing; check the path.")
    check_inside(run)
    settings = read_yaml(file)
    names, env = settings.get("names"), settings.get("env")
    if not (isinstance(names, dict) and "task" in names and isinstance(env, dict)):
        raise UserError(f"{file} is damaged (it is not the configuration of a run); restore it.")
    return settings


def _index_of(
    settings: Mapping[str, Any], known: Sequence[TaskSpec], run: Path, spec: EnvSpec
) -> int:
    """Say which of the tasks a run is of, and refuse one that was played differently."""
    task = str(settings["names"]["task"])
    names = [one.name.replace("_", "-") for one in known]
    if task.replace("_", "-") not in names:
        raise UnknownNameError("task", task, [one.name for one in known], where=f"the run {run}")
    repeat = settings["env"].get("action_repeat", 1)
    if repeat != spec.action_repeat:
        raise UserError(
            f"The run {run} repeats each action {repeat} times, and this one {spec.action_repeat}; "
            f"use data of equal action_repeat."
        )
    return names.index(task.replace("_", "-"))


def recorded_episodes(run: Path) -> list[EpisodeArrays]:
    """Read the complete episodes of a run of one task with vectors and continuous actions.

    Args:
        run: Its folder, with at least one checkpoint.

    Returns:
        The episodes of its newest checkpoint, in the order of writing.

    Raises:
        UserError: If there is no run.
    """
    settings, checkpoints = _settings(run), CheckpointFolder(run / "checkpoints")
    state = load_safely(checkpoints.latest)
    with refused_if_unfit(checkpoints.latest):
        arrays = next(checkpoints.read_pieces(state))
        # The buffer has a slot more for each episode; its size tells their length.
        capacity, lanes = settings["replay_capacity"], state["replay"]["num_envs"]
        extra = (state["replay"]["lane_size"] - 1) * lanes - capacity
        task = TaskSpec(
            name=str(settings["names"]["task"]),
            obs_size=arrays["0/obs/state"].shape[-1],
            action_size=arrays["0/action"].shape[-1],
            episode_length=round(capacity / extra),
        )
        return list(_episodes(run, settings, task))


def _episodes(run: Path, settings: Mapping[str, Any], task: TaskSpec) -> Iterator[EpisodeArrays]:
    """Read the complete episodes of a run's newest checkpoint, in the order of writing."""
    own = EnvSpec(
        obs={"state": (task.obs_size,)},
        action=Continuous(dim=task.action_size),
        episode_length=task.episode_length,
    )
    recorded = Replay(own, settings["replay_capacity"], num_envs=settings["num_envs"])
    checkpoints = CheckpointFolder(run / "checkpoints")
    state = load_safely(checkpoints.latest)
    recorded.load_state_dict(state["replay"])
    for arrays in checkpoints.read_pieces(state):
        _check_shapes(arrays, task, run)
        recorded.write_back(arrays)
    for env_index, still_open in enumerate(state["replay"]["open"]):
        first = max(int(recorded.write_pos[env_index]) - recorded.slots_per_env, 0)
        slots = np.arange(first, int(recorded.write_pos[env_index])) % recorded.slots_per_env
        arrays = {name: array[env_index, slots] for name, array in recorded.arrays.items()}
        starts = np.flatnonzero(np.diff(arrays["episode"], prepend=-1))
        ends = [*starts[1:], len(slots)]
        for begin, end in zip(starts, ends, strict=True):
            complete = arrays["is_first"][begin] and not (still_open and end == len(slots))
            if complete and end - begin > 1:
                yield {
                    "state": arrays["obs/state"][begin:end],
                    **{n: arrays[n][begin : end - 1] for n in ("action", "reward", "terminated")},
                }


def _check_shapes(arrays: Mapping[str, Any], task: TaskSpec, run: Path) -> None:
    """Refuse data of other sizes than the task has."""
    obs = arrays.get("0/obs/state")
    sizes = (None if obs is None else obs.shape[-1], arrays["0/action"].shape[-1])
    if sizes != (task.obs_size, task.action_size):
        seen = "no vector" if sizes[0] is None else f"{sizes[0]} observations"
        raise UserError(
            f"The run {run} recorded {seen} and {sizes[1]} actions, and {task.name} has "
            f"{task.obs_size} and {task.action_size}; use data of the same environment."
        )


def _put(replay: Replay, episode: EpisodeArrays, index: int, spec: EnvSpec) -> None:
    """Write one episode, padded."""
    length = len(episode["reward"])
    if int(replay.write_pos[0]) + length + 1 > replay.slots_per_env:
        raise UserError(
            f"The episodes of offline_data do not fit into a replay of {replay.slots_per_env} "
            f"slots; raise replay_capacity."
        )
    size = sum(shape[0] for shape in spec.observed.values())
    state = _padded(episode["state"], size)
    action = _padded(episode["action"], spec.action.size)
    task_entry = {TASK: np.array([index], np.float32)} if spec.tasks else {}
    replay.begin(0, {"state": state[0], **task_entry})
    for t in range(length):
        replay.add(
            0,
            action[t],
            float(episode["reward"][t]),
            {"state": state[t + 1], **task_entry},
            terminated=bool(episode["terminated"][t]),
            done=t + 1 == length,
        )


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, size - rows.shape[1])))


def _summary(run: Path, task: str, episodes: Sequence[EpisodeArrays]) -> DataSummary:
    returns = [float(episode["reward"].sum(dtype=np.float64)) for episode in episodes]
    return DataSummary(
        run=str(run),
        task=task,
        episodes=len(episodes),
        transitions=sum(len(episode["reward"]) for episode in episodes),
        return_mean=float(np.mean(returns)) if returns else float("nan"),
    )
