"""Replay: a ring buffer over plain arrays, one ring for each environment.

An episode of T transitions takes T + 1 slots: a slot holds an observation, the action taken on
it, and the reward and termination that followed; the last slot holds the final observation alone.
So no observation is stored twice, and of stacked images only the newest is. Sampling draws slots
and rejects those whose subsequence would leave its episode: the cost does not depend on capacity.

Whole episodes can be held out: a fixed share, drawn by the buffer's own generator, that training
never sees and the probes measure on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.mirror import DeviceMirror
from mbrl_flat.data.storage import allocate, joined_slots, slot_layout
from mbrl_flat.data.subsequences import (
    DrawKind,
    NoSubsequenceError,
    any_subsequence,
    are_subsequences,
    draw_starts,
)
from mbrl_flat.errors import UserError
from mbrl_flat.settings import check_number
from mbrl_flat.specs import EnvSpec


class Replay:
    """Uniform subsequences of recorded episodes.

    Args:
        spec: Shapes of observations and actions.
        capacity: Slots over all environments, each one observation.
        num_envs: Number of environments.
        heldout_fraction: Share of episodes that is never trained on, in [0, 1).
        complete_only: Sample only from episodes that have ended, as the published TD-MPC2 does by
            pushing whole episodes.
        seed: Seed of the draw of held-out episodes.
        folder: Where to keep the arrays on the disk; ``None`` keeps them in memory.

    Attributes:
        arrays: By name, each ``[num_envs, slots_per_env, ...]``: ``obs/<entry>``, ``action``,
            ``reward``, ``terminated``, ``is_first``, and ``episode``, the number of its episode:
            odd where that is held out, -1 where nothing was written.
        write_pos: Slots written so far ``[num_envs]``; modulo ``slots_per_env`` the next slot.
        episode_start: Position of the first slot of an environment's newest episode ``[num_envs]``.
        current: Number of that episode ``[num_envs]``.
        mirror: Copy of the arrays on the device that learns, if there is one.

    Raises:
        UserError: If the capacity is less than one subsequence, or the fraction is out of range.
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        *,
        num_envs: int = 1,
        heldout_fraction: float = 0.0,
        complete_only: bool = True,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        check_number("heldout_fraction", heldout_fraction, "[0, 1)")
        check_number("The replay's capacity", capacity, "[1, inf)")
        overhead = 1.0 + 1.0 / max(spec.episode_length, 1)  # an episode's last observation
        self.slots_per_env = int(np.ceil(capacity * overhead / num_envs)) + 1
        self.num_envs, self.complete_only = num_envs, complete_only
        self.heldout_fraction, self.frame_stack = heldout_fraction, spec.frame_stack
        self.stacked = spec.images if self.frame_stack > 1 else frozenset[str]()
        self.arrays: dict[str, np.ndarray] = {
            name: allocate((num_envs, self.slots_per_env, *shape), dtype, folder)
            for name, (shape, dtype) in slot_layout(spec).items()
        }
        self.arrays["episode"].fill(-1)
        self.write_pos, self.episode_start = np.zeros((2, num_envs), np.int64)
        self.current = np.full(num_envs, -1, np.int64)
        self.num_episodes, self.num_heldout = 0, 0
        self._open, self._rng = np.zeros(num_envs, np.bool_), np.random.default_rng(seed)
        # Behind the last training episode of each environment, and slots of a longest episode.
        self.trained_until, self._longest = np.zeros(num_envs, np.int64), spec.episode_length + 1
        self.mirror: DeviceMirror | None = None
        # Positions before which no subsequence of a length and kind was found.
        self._searched: dict[tuple[int, bool, bool], np.ndarray] = {}

    def __len__(self) -> int:
        return int(np.minimum(self.write_pos, self.slots_per_env).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays when full."""
        return sum(array.nbytes for array in self.arrays.values())

    def begin(self, env_index: int, obs: Mapping[str, np.ndarray]) -> None:
        """Start an episode with its first observation, entries ``[...]`` of one environment."""
        held_out = bool(self._rng.random() < self.heldout_fraction)
        # With this episode and the next one the last training episode must still be there.
        behind = self.write_pos[env_index] - self.trained_until[env_index]
        held_out &= bool(behind + 3 * self._longest <= self.slots_per_env)
        self.current[env_index] = 2 * self.num_episodes + int(held_out)
        self.num_episodes += 1
        self.num_heldout += int(held_out)
        self.episode_start[env_index] = self.write_pos[env_index]
        self._open[env_index] = True
        self._put_obs(env_index, obs, is_first=True)

    def add(
        self,
        env_index: int,
        action: np.ndarray,
        reward: float,
        next_obs: Mapping[str, np.ndarray],
        *,
        terminated: bool,
        done: bool,
    ) -> None:
        """Add one transition to the environment's current episode, with an action ``[A]``.

        ``next_obs`` is what followed, the final observation included; ``terminated`` says that the
        task ended, ``done`` that the episode did, by termination or truncation.
        """
        slot = env_index, (self.write_pos[env_index] - 1) % self.slots_per_env
        self.arrays["action"][slot] = action
        self.arrays["reward"][slot] = reward
        self.arrays["terminated"][slot] = terminated
        self._put_obs(env_index, next_obs)
        if not self.current[env_index] % 2:
            self.trained_until[env_index] = self.write_pos[env_index]
        if done:
            self.episode_start[env_index] = self.write_pos[env_index]
            self._open[env_index] = False

    def _put_obs(
        self, env_index: int, obs: Mapping[str, np.ndarray], *, is_first: bool = False
    ) -> None:
        slot = env_index, self.write_pos[env_index] % self.slots_per_env
        # The slot may hold what an older episode left: an episode's last slot has no transition.
        for name in ("action", "reward", "terminated"):
            self.arrays[name][slot] = 0
        self.arrays["is_first"][slot] = is_first
        for name, value in obs.items():
            array = self.arrays[f"obs/{name}"]
            # Of a stack the newest image, which comes last.
            array[slot] = value[-array.shape[2] :] if name in self.stacked else value
        self.arrays["episode"][slot] = self.current[env_index]
        self.write_pos[env_index] += 1

    def _oldest(self) -> np.ndarray:
        """First position of each environment at which a subsequence may begin ``[num_envs]``."""
        # The first frames of a full ring lack those before them.
        beyond = self.write_pos - self.slots_per_env
        return np.where(beyond > 0, beyond + self.frame_stack - 1, 0)

    def _end(self) -> np.ndarray:
        """Position of each environment behind the last slot that may be read ``[num_envs]``."""
        return np.where(self._open & self.complete_only, self.episode_start, self.write_pos)

    def _draw(
        self, num: int, length: int, rng: np.random.Generator, heldout: bool, across: bool
    ) -> np.ndarray:
        """Draw ``num`` candidate starts and keep the valid ones, ``[M, 2]``."""
        starts = draw_starts(self._oldest(), self._end(), length, num, rng)
        kind = DrawKind(heldout=heldout, across_episodes=across)
        return starts[are_subsequences(self.arrays["episode"], starts, length, **kind)]

    def still_valid(self, starts: np.ndarray, length: int, **kind: Unpack[DrawKind]) -> np.ndarray:
        """Those of ``starts`` ``[M, 2]``, drawn earlier, that nothing has overwritten since."""
        there = starts[starts[:, 1] >= self._oldest()[starts[:, 0]]]
        return there[are_subsequences(self.arrays["episode"], there, length, **kind)]

    def can_sample(
        self, length: int, *, heldout: bool = False, across_episodes: bool = False
    ) -> bool:
        """Say whether any subsequence of ``length`` transitions is stored."""
        # While there is none, only slots written since the last call are searched.
        kind, end = (length, heldout, across_episodes), self._end()
        begin = np.maximum(self._oldest(), self._searched.get(kind, 0) - np.array(length))
        for env_index in range(self.num_envs):
            slots = np.arange(begin[env_index], end[env_index]) % self.slots_per_env
            episode = self.arrays["episode"][env_index, slots]
            if any_subsequence(episode, length, heldout=heldout, across_episodes=across_episodes):
                self._searched.pop(kind, None)
                return True
        self._searched[kind] = end
        return False

    def sample(
        self, batch_size: int, length: int, *, rng: np.random.Generator, **kind: Unpack[DrawKind]
    ) -> Batch:
        """Draw subsequences uniformly over all that lie within one episode, or over all.

        Args:
            batch_size: Number of subsequences B.
            length: Transitions T of a subsequence; it holds T + 1 observations.
            rng: Source of the draw; nothing else moves.
            kind: See ``DrawKind``.

        Returns:
            The batch, on the device of the mirror if there is one, else on the CPU.
        """
        return self.gather(self.starts(batch_size, length, rng=rng, **kind), length)

    def starts(
        self, batch_size: int, length: int, *, rng: np.random.Generator, **kind: Unpack[DrawKind]
    ) -> np.ndarray:
        """Draw where the subsequences of ``sample`` begin.

        Returns:
            Environment and position of each ``[B, 2]``.

        Raises:
            NoSubsequenceError: If no stored episode of that kind is long enough.
        """
        heldout, across = kind.get("heldout", False), kind.get("across_episodes", False)
        found = [np.zeros((0, 2), np.int64)]
        missing, tries = batch_size, 0
        while missing > 0:
            starts = self._draw(max(2 * missing, 64), length, rng, heldout, across)[:missing]
            found.append(starts)
            missing -= len(starts)
            tries += 1
            if tries == 1000 and not self.can_sample(length, **kind):
                raise NoSubsequenceError(length, heldout=heldout)
        return np.concatenate(found)

    def gather(self, starts: np.ndarray, length: int) -> Batch:
        """Cut out the subsequences that begin at ``starts`` ``[B, 2]``."""
        env_index, wide = starts[:, :1], starts[:, 1:] + np.arange(length + 1)

        def take(name: str, index: np.ndarray = wide) -> Tensor:
            slots = index % self.slots_per_env
            if self.mirror is not None:
                return self.mirror.take(name, env_index, slots, write_pos=self.write_pos)
            return torch.from_numpy(self.arrays[name][env_index, slots])

        def entry(name: str) -> Tensor:
            if name not in self.stacked:
                return take(f"obs/{name}")
            slots = joined_slots(self.arrays["episode"], env_index, wide, self.frame_stack)
            return torch.cat([take(f"obs/{name}", index) for index in slots], 2)

        return Batch(
            obs={name[4:]: entry(name[4:]) for name in self.arrays if name.startswith("obs/")},
            action=take("action", wide[:, :-1]),
            reward=take("reward", wide[:, :-1]),
            terminated=take("terminated", wide[:, :-1]).float(),
            is_first=take("is_first"),
        )

    def slots_since(self, position: np.ndarray) -> dict[str, Tensor]:
        """Copy the slots of every environment that were written after ``position`` ``[num_envs]``.

        Args:
            position: Values of ``write_pos`` at an earlier moment.

        Returns:
            ``{"env_index/array": [count, ...]}``: what a checkpoint adds to an earlier one. The
            slot before ``position`` is included, as its action came after its observation.
        """
        out: dict[str, Tensor] = {}
        begins = np.maximum(position - 1, self.write_pos - self.slots_per_env).clip(0)
        for i, (begin, end) in enumerate(zip(begins, self.write_pos, strict=True)):
            index = np.arange(begin, end) % self.slots_per_env
            out |= {f"{i}/{n}": torch.from_numpy(a[i, index]) for n, a in self.arrays.items()}
            out[f"{i}/begin"] = torch.tensor(int(begin))
        return out

    def write_back(self, piece: Mapping[str, Tensor]) -> None:
        """Put back what ``slots_since`` copied, ``[count, ...]``."""
        if self.mirror is not None:
            self.mirror.forget()
        for i in range(self.num_envs):
            slots = int(piece[f"{i}/begin"]) + np.arange(len(piece[f"{i}/reward"]))
            for name, array in self.arrays.items():
                array[i, slots % self.slots_per_env] = piece[f"{i}/{name}"].numpy()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the arrays, which ``slots_since`` gives piece by piece."""
        return {
            "lane_size": self.slots_per_env,
            "num_envs": self.num_envs,
            "written": self.write_pos.tolist(),
            "episode_start": self.episode_start.tolist(),
            "current": self.current.tolist(),
            "open": self._open.tolist(),
            "trained_until": self.trained_until.tolist(),
            "num_episodes": self.num_episodes,
            "num_heldout": self.num_heldout,
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore cursors; the arrays come through ``write_back``.

        Raises:
            UserError: If the saved buffer had another shape.
        """
        if (state["lane_size"], state["num_envs"]) != (self.slots_per_env, self.num_envs):
            raise UserError(
                f"The saved replay has {state['num_envs']} x {state['lane_size']} slots, this "
                f"run has {self.num_envs} x {self.slots_per_env}; resume with the same settings."
            )
        self.write_pos = np.array(state["written"], np.int64)
        self.episode_start = np.array(state["episode_start"], np.int64)
        self.current = np.array(state["current"], np.int64)
        self._open = np.array(state["open"], np.bool_)
        # Without it, as if the newest episode had been one to train on.
        self.trained_until = np.array(state.get("trained_until", state["written"]), np.int64)
        self.num_episodes, self.num_heldout = state["num_episodes"], state["num_heldout"]
        self._rng.bit_generator.state = state["rng"]
        self._searched = {}
