"""Record episodes of a task once, and keep them.

An episode follows from the settings and its number alone: its simulator is seeded with both, and so
are its actions. So a recording that was interrupted resumes with the episode that is missing, and
two processes that record at once write the same files.
"""

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mbrl_flat.errors import UserError
from mbrl_flat.runs.offline_data import recorded_episodes
from mbrl_flat.runtime.files import check_writable
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.offline.behaviour import action_sequence

_ARRAYS = ("obs", "action", "reward")
_SIMULATORS = ("dm-control", "mujoco", "gymnasium")


def named_part(path: str) -> Callable[..., Any]:
    """Return what a dotted path names, as ``_target_`` does in the configuration.

    The library imports neither environments nor agents; a study names those that it is given.

    Args:
        path: Such as ``mbrl_flat.envs.dmc.make``.

    Returns:
        The function or class.

    Raises:
        UserError: If there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"There is nothing called {path!r}; give the path of a function or class, such as "
            f"mbrl_flat.envs.dmc.make."
        ) from error


@dataclass(frozen=True, kw_only=True)
class Recording(CheckedSettings):
    """What is recorded; its settings.

    Attributes:
        env: Path of the function that makes the environment.
        task: Its task; one that does not terminate.
        episodes: Number of episodes.
        length: Transitions of an episode that a model may see.
        tail: Further steps, recorded for the returns of the last of these.
        seed: Determines everything.
        folder: Where the files are kept; by default ``mbrl_flat/recordings`` in the user's cache.
        run: Folder of a run of ``mbrl-flat-train`` whose replay is the data set instead: episodes
            of increasing skill, played by the learning agent with its exploration noise. ``task``
            then only names it.
        start: Step at which the taken part of the run's episodes begins.
    """

    env: str = "mbrl_flat.envs.dmc.make"
    task: str = "dog-run"
    episodes: int = setting(200, "[1, inf)")
    length: int = setting(100, "[1, inf)")
    tail: int = setting(60, "[0, inf)")
    seed: int = setting(0, "[0, inf)")
    folder: str | None = None
    run: str | None = None
    start: int = setting(0, "[0, inf)")

    @property
    def path(self) -> Path:
        """Folder of the files: other settings or simulators have another one."""
        facts = asdict(self) | {"folder": None, "episodes": None}
        facts = {name: fact for name, fact in facts.items() if name not in ("run", "start")}
        facts |= {name: _version(name) for name in _SIMULATORS}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return Path(self.folder or _user_cache()) / f"{self.task}_{digest}"

    def check_data(self) -> None:
        """Refuse to begin without the run, or the environment whose episodes are missing."""
        if self.run is not None:
            self._of_run(Path(self.run))
        elif self._missing:
            check_writable(self.path)
            named_part(self.env)(self.task, seed=self.seed).close()

    @property
    def _files(self) -> list[Path]:
        return [self.path / f"{number:05d}.npz" for number in range(self.episodes)]

    @property
    def _missing(self) -> list[int]:
        return [number for number, file in enumerate(self._files) if not file.exists()]

    def load(self) -> dict[str, np.ndarray]:
        """Return all episodes; record those that are not there yet.

        Returns:
            ``obs`` ``[E, T + 1, n]``, ``action`` ``[E, T, A]`` and ``reward`` ``[E, T]``, float32,
            where T is ``length + tail``.
        """
        if self.run is not None:
            return self._of_run(Path(self.run))
        files = self._files
        if missing := self._missing:
            self.path.mkdir(parents=True, exist_ok=True)
            env = named_part(self.env)(self.task, seed=self.seed)
            try:
                for number in missing:
                    _write(files[number], self.episode(env, number))
            finally:
                env.close()
        loaded = [np.load(file) for file in files]
        return {name: np.stack([episode[name] for episode in loaded]) for name in _ARRAYS}

    def _of_run(self, run: Path) -> dict[str, np.ndarray]:
        """Take episodes evenly from a run, shuffled so that every part has all levels of skill."""
        end = self.start + self.length + self.tail
        long = [e for e in recorded_episodes(run) if len(e["reward"]) >= end]
        if len(long) < self.episodes:
            raise UserError(
                f"{run} has {len(long)} episodes of at least {end} steps, but "
                f"episodes={self.episodes} was given; train longer, or shorten length and tail."
            )
        spread = np.linspace(0, len(long) - 1, self.episodes).round().astype(int)
        taken = [long[i] for i in np.random.default_rng(self.seed).permutation(spread)]
        bounds = {"obs": ("state", end + 1), "action": ("action", end), "reward": ("reward", end)}
        return {
            name: np.stack([e[source][self.start : stop] for e in taken]).astype(np.float32)
            for name, (source, stop) in bounds.items()
        }

    def episode(self, env: Any, number: int) -> dict[str, np.ndarray]:
        """Play one episode.

        Args:
            env: The environment; only its state after the reset matters.
            number: Which episode.

        Returns:
            The arrays of ``load`` without their first axis.

        Raises:
            UserError: If the episode ends too early, or actions are not continuous.
        """
        if not env.action_space.shape:
            raise UserError(f"{self.task} has discrete actions; take a task with continuous ones.")
        rng = np.random.default_rng([self.seed, number])
        steps = self.length + self.tail
        actions = action_sequence(steps, env.action_space.shape[0], rng=rng)
        obs, _ = env.reset(seed=int(rng.integers(2**31)))
        seen, rewards = [joined(obs)], []
        for time, action in enumerate(actions, start=1):
            obs, reward, terminated, truncated, _ = env.step(action)
            seen.append(joined(obs))
            rewards.append(reward)
            if terminated or (truncated and time < steps):
                raise UserError(
                    f"An episode of {self.task} ended after {time} steps; this study needs "
                    f"{steps}: shorten length or tail, or take a task that does not terminate."
                )
        return {
            "obs": np.stack(seen).astype(np.float32),
            "action": actions,
            "reward": np.array(rewards, np.float32),
        }


def joined(obs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Join the entries of an observation to one vector ``[n]``."""
    return np.concatenate([np.ravel(entry) for entry in obs.values()])


def _write(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write under a name of this process, then rename: nobody reads half a file."""
    partial = file.with_name(f"{file.stem}.{os.getpid()}.partial.npz")
    np.savez_compressed(
        partial, obs=arrays["obs"], action=arrays["action"], reward=arrays["reward"]
    )
    partial.replace(file)


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mbrl_flat" / "recordings"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
