"""Whole episodes with a frozen agent, and what they say of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from mbrl_flat.data.episode import Episode
from mbrl_flat.interfaces import Agent, Mode
from mbrl_flat.runtime.interrupts import check_interrupt
from mbrl_flat.runtime.seeding import check_seed, restored_rng
from mbrl_flat.settings import check_number
from mbrl_flat.specs import EnvSpec

FrameSink = Callable[[np.ndarray], None]
"""Takes one RGB frame ``[height, width, 3]``."""


def as_tensors(obs: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Copy a vector environment's observation, which reuses its arrays."""
    return {name: torch.from_numpy(np.array(value)) for name, value in obs.items()}


def lives_lost(info: Mapping[str, Any], num_envs: int) -> np.ndarray:
    """Where a step is to be recorded as a termination, ``info["life_lost"]``, bool ``[N]``."""
    return np.asarray(info.get("life_lost", np.zeros(num_envs, bool)), bool)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How an agent is evaluated.

    Attributes:
        episodes: Episodes of each kind and task.
        seed: With the step it determines every episode.
        env_seed: Seed of the environments.
        video: Record the first episode.
        names: Of the environment and its task, by which the scale of normalised scores is found;
            where there are several tasks it is in the spec.
        progress: Show a bar, on a terminal.
    """

    episodes: int
    seed: int
    env_seed: int
    video: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    progress: bool = False

    def __post_init__(self) -> None:
        check_episodes(self.episodes, seed=self.seed, name="eval_episodes")


def check_episodes(episodes: int, *, seed: int, name: str = "episodes") -> None:
    """Refuse what no episodes can be played with.

    Args:
        episodes: How many are played, at least 1.
        seed: Determines the episodes; the same seed plays the same ones again.
        name: What the user calls their number.

    Raises:
        UserError: If a number is out of range.
    """
    check_number(name, episodes, "[1, inf)", whole=True)
    check_seed(seed)


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Independent seeds, one for each episode."""
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(episodes)]


class _Recorder:
    """Collects one round of episodes, one in each environment."""

    def __init__(self, num_envs: int, obs: dict[str, Tensor]) -> None:
        self.alive = np.ones(num_envs, bool)
        self.obs: list[list[dict[str, Tensor]]] = [[] for _ in range(num_envs)]
        self.rows: list[list[tuple[Tensor, float, Tensor, bool]]] = [[] for _ in range(num_envs)]
        self.terminated = np.zeros(num_envs, bool)
        self.success: list[float | None] = [None] * num_envs
        self._put_obs(obs)

    def _put_obs(self, obs: dict[str, Tensor]) -> None:
        for env in np.flatnonzero(self.alive):
            self.obs[env].append({name: value[env] for name, value in obs.items()})

    def put(
        self,
        action: Tensor,
        value: Tensor,
        outcome: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]],
    ) -> None:
        next_obs, reward, terminated, truncated, info = outcome
        lost = lives_lost(info, len(self.alive))
        for env in np.flatnonzero(self.alive):
            self.rows[env].append((action[env], float(reward[env]), value[env], bool(lost[env])))
            if "success" in info and info.get("_success", self.alive)[env]:
                self.success[env] = float(info["success"][env])
        self._put_obs(as_tensors(next_obs))
        self.terminated |= self.alive & terminated
        self.alive &= ~(terminated | truncated)

    def episodes(self) -> list[Episode]:
        return [
            Episode(
                obs={name: torch.stack([o[name] for o in obs]) for name in obs[0]},
                action=torch.stack([row[0] for row in rows]),
                reward=torch.tensor([row[1] for row in rows]),
                terminated=bool(terminated),
                value=torch.stack([row[2] for row in rows]),
                success=success,
                life_lost=torch.tensor([row[3] for row in rows]),
            )
            for obs, rows, terminated, success in zip(
                self.obs, self.rows, self.terminated, self.success, strict=True
            )
        ]


def evaluate(
    agent: Agent,
    envs: VectorEnv[Any, Any, Any],
    spec: EnvSpec,
    *,
    episodes: int,
    seed: int,
    mode: Mode = "eval",
    device: torch.device | None = None,
    frame_sink: FrameSink | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> list[Episode]:
    """Run whole episodes; each environment plays one at a time, all in one batch.

    Nothing of the training moves: the environments are not the training ones, the actions draw
    from a generator of their own, and the global streams are put back.

    Args:
        agent: The agent that chooses the actions.
        envs: Environments whose episodes end by themselves, without automatic reset.
        spec: Their shapes.
        episodes: How many, in rounds of as many as there are environments.
        seed: Determines every episode's start and every action.
        mode: Plan without noise, or sample the policy prior alone.
        device: Where the agent draws its noise.
        frame_sink: Takes a frame of the first episode at every step.
        on_step: Called after every step, for a progress bar.

    Returns:
        The episodes, on the CPU.
    """
    generator = torch.Generator(device or "cpu").manual_seed(seed)
    seeds = episode_seeds(seed, -(-episodes // envs.num_envs) * envs.num_envs)
    done: list[Episode] = []
    with restored_rng():
        while len(done) < episodes:
            round_seeds: Any = seeds[len(done) : len(done) + envs.num_envs]
            obs = as_tensors(envs.reset(seed=round_seeds)[0])
            state = agent.initial_state(envs.num_envs)
            recorder = _Recorder(envs.num_envs, obs)
            while recorder.alive.any():
                check_interrupt()
                if frame_sink is not None and recorder.alive[0] and not done:
                    frame_sink(np.asarray((envs.render() or [])[0]))
                action, state = agent.act(obs, state, mode=mode, generator=generator)
                outcome = envs.step(spec.action.to_env(action))
                recorder.put(action.cpu(), state["value"].cpu(), outcome)
                on_step()
                obs = _next_obs(envs, outcome, again=bool(recorder.alive.any()))
            done += recorder.episodes()
    return done[:episodes]


def _next_obs(envs: VectorEnv[Any, Any, Any], outcome: Any, *, again: bool) -> dict[str, Tensor]:
    """Observations to act on; those that ended start over unrecorded while others still play."""
    obs, _, terminated, truncated, _ = outcome
    ended = terminated | truncated
    if again and ended.any():
        obs = envs.reset(options={"reset_mask": ended})[0]
    return as_tensors(obs)


def summarize(
    episodes: Sequence[Episode], score_range: tuple[float, float] | None = None
) -> dict[str, float]:
    """Mean and spread of returns, mean length, normalised score and share of successes."""
    returns = np.array([episode.undiscounted_return for episode in episodes])
    row = {
        "eval/return_mean": float(returns.mean()),
        "eval/return_std": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        "eval/length_mean": float(np.mean([episode.length for episode in episodes])),
    }
    if score_range is not None:
        zero, one = score_range
        row["eval/normalised_score"] = (row["eval/return_mean"] - zero) / (one - zero)
    successes = [episode.success for episode in episodes if episode.success is not None]
    if successes:
        row["eval/success_rate"] = float(np.mean(successes))
    return row
