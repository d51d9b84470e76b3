"""Act in the training environments and record what happens, or learn from what there is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from mbrl_flat.data.replay import Replay
from mbrl_flat.errors import NonFiniteError
from mbrl_flat.evaluation.episodes import as_tensors, lives_lost
from mbrl_flat.interfaces import Agent, AgentState, PredictsTermination
from mbrl_flat.logging.console import say
from mbrl_flat.runtime.seeding import set_generator
from mbrl_flat.specs import EnvSpec
from mbrl_flat.training.meters import MeanMeter, Stopwatch


@dataclass(frozen=True, kw_only=True)
class TrainEnvs:
    """Training environments and how their state is saved.

    Attributes:
        vector: N environments without automatic reset.
        spec: Their shapes.
        save: Returns everything that their future depends on.
        restore: Takes that, and returns the current observations.
    """

    vector: VectorEnv[Any, Any, Any]
    spec: EnvSpec
    save: Callable[[], Any]
    restore: Callable[[Any], dict[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class EpisodeMarkers:
    """What an environment wants recorded differently from what happens in it, such as a lost life.

    Attributes:
        terminated: Record a termination, ``info["life_lost"]``, bool ``[N]``.
        new_episode: End the recorded episode and begin another, ``info["new_episode"]``; the
            environment continues and its return is that of the whole. False where it ends anyway.
    """

    terminated: np.ndarray
    new_episode: np.ndarray

    @classmethod
    def of(cls, info: Mapping[str, Any], done: np.ndarray) -> "EpisodeMarkers":
        """Read them from the ``info`` of a vector environment."""
        new = np.asarray(info.get("new_episode", np.zeros(len(done), bool)), bool)
        return cls(terminated=lives_lost(info, len(done)), new_episode=new & ~done)


class Collector:
    """Steps all environments at once; each has a ring of its own in the replay.

    Args:
        agent: The agent that chooses the actions.
        envs: The environments that it acts in.
        replay: Where transitions go.
        watch: Told how long acting and the environments take.
        seed: Determines random actions and exploration noise.
        device: Where the agent draws its exploration noise.
    """

    def __init__(
        self,
        agent: Agent,
        envs: TrainEnvs,
        replay: Replay,
        watch: Stopwatch,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.agent, self.envs, self.replay, self.watch = agent, envs, replay, watch
        self.num_envs, self.action_repeat = envs.vector.num_envs, envs.spec.action_repeat
        self.seed, self.noise = seed, torch.Generator(device).manual_seed(seed)
        self.action_rng = np.random.default_rng([seed, 2])
        self.max_idle_steps = 10 * envs.spec.episode_length * self.num_envs
        self.meter = MeanMeter()
        self.running_return = np.zeros(self.num_envs)
        self.running_length = np.zeros(self.num_envs, np.int64)
        self.obs: dict[str, Tensor] = {}
        self.state: AgentState = {}
        self.notes_termination = (
            isinstance(agent, PredictsTermination) and not agent.predicts_termination
        )

    def start(self) -> None:
        """Begin every environment's first episode."""
        obs, _ = self.envs.vector.reset()
        self._begin(obs, np.ones(self.num_envs, bool))
        self.state = self.agent.initial_state(self.num_envs)

    def step(self, *, random: bool) -> None:
        """Make one step in every environment, by random actions or the agent's."""
        spec = self.envs.spec
        with self.watch.measure("act"):
            if random:
                action = spec.action.random(self.num_envs, self.action_rng)
            else:
                action, self.state = self.agent.act(
                    self.obs, self.state, mode="explore", generator=self.noise
                )
            acted = action.cpu().numpy()
            if not np.isfinite(acted).all():
                raise NonFiniteError(
                    f"the agent chose the action {acted[~np.isfinite(acted).all(-1)][0].tolist()}, "
                    f"so its weights are not finite either; resume from a checkpoint before that."
                )
            chosen = spec.action.to_env(action)
        with self.watch.measure("env"):
            outcome = self.envs.vector.step(chosen)
        self._record(acted, outcome)
        self.watch.add_steps(self.num_envs)

    def _record(
        self,
        action: np.ndarray,
        outcome: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]],
    ) -> None:
        """Put one transition of every environment into the replay; reset those that ended."""
        obs, reward, terminated, truncated, info = outcome
        done = terminated | truncated
        if terminated.any() and self.notes_termination:
            self.notes_termination = False
            say(
                "note: an episode terminated, and this agent does not learn to predict that; "
                "agent.config.episodic=true lets it."
            )
        markers = EpisodeMarkers.of(info, done)
        self.running_return += reward
        self.running_length += 1
        for env_index in range(len(done)):
            next_obs = {name: value[env_index] for name, value in obs.items()}
            self.replay.add(
                env_index,
                action[env_index],
                float(reward[env_index]),
                next_obs,
                terminated=bool(terminated[env_index] or markers.terminated[env_index]),
                done=bool(done[env_index] or markers.new_episode[env_index]),
            )
        self.obs = as_tensors(obs)
        if markers.new_episode.any():
            self._begin(obs, markers.new_episode)
            self.state = self.agent.reset_state(self.state, torch.from_numpy(markers.new_episode))
        if done.any():
            for env_index in np.flatnonzero(done):
                self.meter.add(
                    {
                        "episode/return": float(self.running_return[env_index]),
                        "episode/length": float(self.running_length[env_index]),
                    }
                )
            self.running_return[done] = 0.0
            self.running_length[done] = 0
            with self.watch.measure("env"):
                fresh, _ = self.envs.vector.reset(options={"reset_mask": done})
            self._begin(fresh, done)
            self.state = self.agent.reset_state(self.state, torch.from_numpy(done))

    def _begin(self, obs: dict[str, np.ndarray], environments: np.ndarray) -> None:
        self.obs = as_tensors(obs)
        for env_index in np.flatnonzero(environments):
            self.replay.begin(
                int(env_index), {name: value[env_index] for name, value in obs.items()}
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but the agent and the replay."""
        running = np.stack([self.running_return, self.running_length.astype(np.float64)])
        return {
            "noise": self.noise.get_state(),
            "noise_device": self.noise.device.type,
            "action_rng": self.action_rng.bit_generator.state,
            "meter": self.meter.state_dict(),
            "running": torch.from_numpy(running),
            "agent_state": self.state,
            "envs": self.envs.save(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave; the replay has to be restored before.

        On another kind of device than that of the saved run (a CPU instead of a GPU) exploration
        noise comes from a new stream, which the seed and what was recorded so far determine.
        """
        seeds = [self.seed, int(self.replay.write_pos.sum())]
        saved_on = state.get("noise_device")
        set_generator(self.noise, state["noise"], saved_on=saved_on, seeds=seeds)
        self.action_rng.bit_generator.state = state["action_rng"]
        self.meter.load_state_dict(state["meter"])
        running = state["running"].cpu().numpy()
        self.running_return = running[0].copy()
        self.running_length = running[1].astype(np.int64)
        device = self.noise.device
        self.state = {name: value.to(device) for name, value in state["agent_state"].items()}
        self.obs = as_tensors(self.envs.restore(state["envs"]))


class OfflineCollector:
    """Stands where the collector does when a run learns offline: a step is a step of learning.

    Args:
        watch: Told of the steps.
    """

    num_envs = 1
    action_repeat = 1
    max_idle_steps = 1

    def __init__(self, watch: Stopwatch) -> None:
        self.watch, self.meter = watch, MeanMeter()

    def start(self) -> None:
        """Begin; there is nothing to begin with."""

    def step(self, *, random: bool) -> None:
        """Count a step."""
        del random
        self.watch.add_steps(1)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the replay stays as it is."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing."""
        del state


def make_collector(
    agent: Agent,
    envs: TrainEnvs | None,
    replay: Replay,
    watch: Stopwatch,
    *,
    seed: int,
    device: torch.device,
) -> Collector | OfflineCollector:
    """Say where a run gets its data from; see ``Collector`` for the arguments."""
    if envs is None:
        return OfflineCollector(watch)
    return Collector(agent, envs, replay, watch, seed=seed, device=device)
