r"""Control by planning with a world model that learned from recorded episodes.

Plans maximise, over sequences of H + 1 actions, what the model imagines,

.. math::
    \hat G_H = \sum_{i<H} \gamma^i \hat r_{t+i} + \gamma^H \hat Q(\hat z_{t+H}, a_{t+H})

by MPPI without a policy prior; the mean of the last iteration is the plan. ``return_H`` is the
undiscounted return of episodes in which the first action of a new plan is taken at every step.
Exploitation is measured as in ``mbrl_flat.diagnostics.planner_bias_probe``: plans of k actions are
executed to their end without replanning, and

.. math::
    \mathrm{bias}_k = \mathrm{mean}\Big(\hat G_k - \sum_{i<k} \gamma^i r_{t+i}
    - \gamma^k \hat Q(enc(o_{t+k}), a_{t+k})\Big)

Both sides end with the same critic and the same action.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3.3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.diagnostics.robustness_probe import EnvPerturbation
from mbrl_flat.errors import UserError
from mbrl_flat.planning.mppi import MPPIConfig, draw_noise, mppi
from mbrl_flat.settings import CheckedSettings, setting
from mbrl_flat.studies.offline.recording import Recording, joined, named_part
from mbrl_flat.studies.offline.transitions import Scale


class PlanningModel(Protocol):
    """A world model whose imagination plans can be valued by."""

    def encode(self, obs: Tensor) -> Tensor:
        """Latents ``[N, D]`` of standardised observations ``[N, n]``."""
        ...

    def imagined_return(self, latent: Tensor, actions: Tensor, discount: float) -> Tensor:
        """Values ``[N, S]`` of sequences of H + 1 actions ``[N, S, H + 1, A]`` from ``[N, D]``."""
        ...


class Played(NamedTuple):
    """What N episodes gave."""

    returns: np.ndarray
    """Undiscounted ``[N]``."""
    imagined: np.ndarray
    """Of the plans that were executed to their end ``[P, N]``."""
    realised: np.ndarray
    """Of the same ``[P, N]``."""


@dataclass(frozen=True, kw_only=True)
class Control(CheckedSettings):
    """How models are tried; the settings.

    Attributes:
        episodes: Episodes N, played side by side; variants of one seed start in the same states.
        horizons: H of plans that are recomputed at every step; the perturbed episodes take the
            middle one.
        executed: k of plans that are executed to their end.
        num_samples: Sequences of an iteration.
        num_elites: Those that shape the next one.
        iterations: Rounds of sampling.
        perturbations: Of the environment, by name: the path of the ``wrapper``, ``strengths`` and
            ``scaled``, as in ``mbrl_flat.diagnostics.robustness_probe.EnvPerturbation``.
    """

    episodes: int = setting(2, "[1, inf)")
    horizons: Sequence[int] = setting((1, 3, 10), "[1, inf)")
    executed: Sequence[int] = setting((1, 3, 5, 10), "[1, inf)")
    num_samples: int = setting(64, "[1, inf)")
    num_elites: int = setting(8, "[1, inf)")
    iterations: int = setting(4, "[1, inf)")
    perturbations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.episodes < 1 or min([*self.horizons, *self.executed], default=0) < 1:
            raise UserError(
                f"control takes at least one episode and horizons from 1 on, got episodes="
                f"{self.episodes}, horizons={list(self.horizons)} and executed="
                f"{list(self.executed)}."
            )

    def measure(
        self,
        model: PlanningModel,
        recording: Recording,
        scale: Scale,
        *,
        seed: int,
        discount: float,
    ) -> dict[str, float]:
        """Play all kinds of episodes.

        Args:
            model: Trained, in evaluation mode.
            recording: Names the environment and its task.
            scale: Of the observations that the model learned from.
            seed: Determines start states and the planner's samples.
            discount: Of the model's values.

        Returns:
            ``return_H``; ``plan_bias_k`` and ``plan_relative_bias_k``, the same over the mean
            absolute realised return; ``return_<perturbation>_<strength>``.
        """
        make = partial(named_part(recording.env), recording.task)
        play = partial(self.play, model, scale=scale, seed=seed, discount=discount)
        row = {f"return_{h}": play(make, horizon=h).returns.mean() for h in self.horizons}
        for k in self.executed:
            played = play(make, horizon=k, replan=False)
            bias = (played.imagined - played.realised).mean()
            row[f"plan_bias_{k}"] = bias
            row[f"plan_relative_bias_{k}"] = bias / np.abs(played.realised).mean()
        middle = sorted(self.horizons)[len(self.horizons) // 2]
        for name, facts in self.perturbations.items():
            perturbation = EnvPerturbation(**{**facts, "wrapper": named_part(facts["wrapper"])})
            for strength in perturbation.strengths:
                wrap = perturbation.at(strength, {"state": scale.deviation.numpy()})
                played = play(_wrapped(make, wrap), horizon=middle)
                row[f"return_{name}_{strength:g}"] = played.returns.mean()
        return {name: float(value) for name, value in row.items()}

    @torch.no_grad()
    def play(
        self,
        model: PlanningModel,
        make: Callable[..., Any],
        *,
        scale: Scale,
        seed: int,
        discount: float,
        horizon: int,
        replan: bool = True,
    ) -> Played:
        """Play one episode in each of N environments, until the first of them ends.

        Args:
            model: As in ``measure``.
            make: ``make(seed=...)`` gives an environment.
            scale: As in ``measure``.
            seed: As in ``measure``.
            discount: As in ``measure``.
            horizon: H of the plans.
            replan: At every step; otherwise after H steps, when a plan has been executed.

        Returns:
            Returns and, without ``replan``, what the plans promised and gave.
        """
        envs = [make(seed=seed * 1000 + i) for i in range(self.episodes)]
        size = envs[0].action_space.shape[0]
        generator = torch.Generator().manual_seed(seed)
        obs = _stacked([env.reset(seed=seed * 1000 + i)[0] for i, env in enumerate(envs)])
        plan = torch.zeros(self.episodes, horizon + 1, size)
        rewards: list[Tensor] = []
        promised: list[Tensor] = []
        realised: list[Tensor] = []
        done, used = False, horizon
        while not done:
            if replan or used == horizon:
                latent = model.encode(scale.apply(obs))
                if not replan and promised:
                    tail = model.imagined_return(latent, plan[:, None, -1:], discount)[:, 0]
                    realised.append(_discounted(rewards[-horizon:], tail, discount))
                start = plan if replan else torch.zeros_like(plan)
                plan = self.plan(model, latent, start, generator, discount=discount)
                promised.append(model.imagined_return(latent, plan[:, None], discount)[:, 0])
                used = 0
            action = plan[:, used].clamp(-1.0, 1.0).numpy()
            seen, reward, *ends, _ = zip(
                *(env.step(a) for env, a in zip(envs, action, strict=True)), strict=True
            )
            obs, used, done = _stacked(seen), used + 1, bool(np.any(ends))
            rewards.append(torch.tensor(reward, dtype=torch.float32))
        for env in envs:
            env.close()
        kept = promised[: len(realised)] or [torch.zeros(0)]
        return Played(
            torch.stack(rewards).sum(0).numpy(),
            torch.stack(kept).numpy(),
            torch.stack(realised or [torch.zeros(0)]).numpy(),
        )

    def plan(
        self,
        model: PlanningModel,
        latent: Tensor,
        previous: Tensor,
        generator: torch.Generator,
        *,
        discount: float,
    ) -> Tensor:
        """Plan from latents ``[N, D]``, starting at the plan ``[N, H + 1, A]`` of the step before.

        Returns:
            The planned actions ``[N, H + 1, A]``.
        """
        config = MPPIConfig(
            horizon=previous.shape[1],
            num_samples=self.num_samples,
            num_prior=0,
            num_elites=self.num_elites,
            iterations=self.iterations,
        )
        noise = draw_noise(config, len(latent), previous.shape[2], generator)
        return mppi(
            lambda actions, _: model.imagined_return(latent, actions, discount),
            previous[:, None, :, :][:, :0],
            previous,
            noise,
            config,
            explore=False,
        ).mean


def _discounted(rewards: Sequence[Tensor], tail: Tensor, discount: float) -> Tensor:
    """Sum rewards ``[N]`` of k steps and the value ``[N]`` after them."""
    for reward in reversed(rewards):
        tail = reward + discount * tail
    return tail


def _stacked(obs: Sequence[Mapping[str, np.ndarray]]) -> Tensor:
    return torch.from_numpy(np.stack([joined(each) for each in obs])).float()


def _wrapped(make: Callable[..., Any], wrap: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda **settings: wrap(make(**settings))
