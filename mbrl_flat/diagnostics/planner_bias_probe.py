r"""Model exploitation: imagined against realised return of a planner's own plans.

A planner searches for actions that its model overrates. A plan of ``k`` actions is executed to its
end without replanning, and its imagined return is compared with what followed,

.. math::
    \mathrm{bias}_k = \mathrm{mean}\Big(\sum_{i<k} \gamma^i \hat r_{t+i} + \gamma^k V(\hat z_{t+k})
    - \sum_{i<k} \gamma^i r_{t+i} - \gamma^k V(enc(o_{t+k}))\Big)

Both sides end with the same critic, so its own error cancels as far as the latents agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.probe import NothingToMeasure, ProbedRun
from mbrl_flat.diagnostics.value_error import bias_interval, discounted_returns
from mbrl_flat.diagnostics.value_error_probe import with_critic
from mbrl_flat.errors import UserError


@runtime_checkable
class Plans(Protocol):
    """An agent with a planner."""

    planner: Any


@dataclass(frozen=True, kw_only=True)
class PlannerBiasProbe:
    """The bias along horizons, as ``probe/planner/bias_<k>`` of a saved run.

    Each comes with ``bias_<k>_low`` and ``bias_<k>_high``, the 95% interval over episodes, and
    ``relative_bias_<k>``, divided by the mean absolute realised return. With several numbers of
    samples the names end with ``_samples_<n>``.

    Attributes:
        plan: ``plan(agent, obs, generator, horizon=..., num_samples=...)`` gives actions
            ``[N, H, A]`` and imagined returns ``[N]``.
        horizons: The numbers of actions k.
        num_samples: Numbers of sampled plans; None for the agent's own.

    Raises:
        UserError: If a horizon is less than 1.
    """

    plan: Callable[..., tuple[Tensor, Tensor]]
    horizons: Sequence[int] = tuple(range(1, 11))
    num_samples: Sequence[int | None] = (None,)

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 1:
            raise UserError(f"The probe's horizons must be at least 1, got {list(self.horizons)}.")

    def measure_run(self, run: ProbedRun) -> dict[str, float]:
        """Play episodes by plans of each horizon.

        Args:
            run: The saved run.

        Returns:
            The row.

        Raises:
            NothingToMeasure: If the agent is not one that the planner is for, or no episode is as
                long as a plan.
        """
        if not isinstance(run.agent, Plans):
            raise NothingToMeasure("the agent does not plan; the probe is for agent=tdmpc2.")
        row: dict[str, float] = {}
        for samples in self.num_samples:
            suffix = "" if len(self.num_samples) == 1 else f"_samples_{samples}"
            for horizon in self.horizons:
                follower = PlanFollower(run.agent, self.plan, horizon, samples)
                episodes = run.play("eval", agent=follower)
                errors, realised = plan_errors(run.agent, episodes, follower.imagined, horizon)
                low, bias, high = bias_interval(errors)
                if np.isnan(bias):
                    continue
                row[f"bias_{horizon}{suffix}"] = bias
                if np.isfinite(low):
                    row[f"bias_{horizon}_low{suffix}"] = low
                    row[f"bias_{horizon}_high{suffix}"] = high
                scale = float(torch.cat(realised).abs().mean())
                if scale > 0.0:
                    row[f"relative_bias_{horizon}{suffix}"] = bias / scale
        if not row:
            raise NothingToMeasure("no episode is as long as a plan.")
        return {f"probe/planner/{name}": value for name, value in row.items()}


class PlanFollower:
    """Acts by executing whole plans, one after the other.

    Args:
        agent: A trained agent that plans; it is not changed.
        plan: See ``PlannerBiasProbe``.
        horizon: Actions of a plan.
        num_samples: Number of plans that are sampled for each observation.

    Attributes:
        imagined: Imagined returns ``[N]`` of each plan, in order.
    """

    def __init__(
        self, agent: Any, plan: Callable[..., Any], horizon: int, num_samples: int | None
    ) -> None:
        self.agent, self.plan, self.horizon = agent, plan, horizon
        self.num_samples = num_samples
        self.imagined: list[Tensor] = []
        self._step, self._actions = 0, Tensor()

    def initial_state(self, num_envs: int) -> dict[str, Tensor]:
        """Begin with a plan."""
        self._step = 0
        return {"value": torch.zeros(num_envs)}

    def act(
        self, obs: dict[str, Tensor], state: dict[str, Tensor], *, mode: Any, generator: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The next action ``[N, A]`` of the plans."""
        del mode
        if self._step % self.horizon == 0:
            self._actions, value = self.plan(
                self.agent, obs, generator, horizon=self.horizon, num_samples=self.num_samples
            )
            self.imagined.append(value.cpu())
        action = self._actions[:, self._step % self.horizon]
        self._step += 1
        return action, state


def plan_errors(
    agent: Any, episodes: Sequence[Episode], imagined: Sequence[Tensor], horizon: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Compare plans that were executed to their end, or to that of the task, with what followed.

    Args:
        agent: Whose critic values where a plan led.
        episodes: One for each environment, all begun together.
        imagined: Imagined returns ``[N]`` of each plan, in order.
        horizon: Actions of a plan.

    Returns:
        For each episode the errors of its plans, and the realised returns.
    """
    errors, realised = [], []
    for index, episode in enumerate(episodes):
        # The critic's value of every observation but the last, which ends no plan that counts.
        value = with_critic(agent, episode).value.double()
        found: list[Tensor] = []
        for start in range(0, episode.length, horizon):
            end = start + horizon
            reward = episode.reward[start:end]
            ended = bool(episode.ends[start:end].any())
            if end >= episode.length and not ended:
                break
            returns = discounted_returns(
                reward,
                discount=agent.discount,
                tail=0.0 if ended else float(value[end]),
                ends=episode.ends[start:end],
            )
            found.append(returns[0])
        actual = torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)
        guessed = torch.tensor([float(plan[index]) for plan in imagined[: len(found)]])
        errors.append(guessed.double() - actual)
        realised.append(actual)
    return errors, realised
