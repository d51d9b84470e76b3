"""The probe of value errors: three different errors, each with its own name.

==================  ===========================  ============================================
name                estimate                     judged by the return of
==================  ===========================  ============================================
``probe/value``     the critic, of the policy    the policy itself: the critic's own error
``probe/planner``   the plan, with the critic    the planner: what a decision was based on
                    at its end
``probe/mixed``     the critic, of the policy    the planner: also holds how much better (or
                                                 worse) planning is, so a negative bias is no
                                                 underestimation
==================  ===========================  ============================================
"""

from dataclasses import dataclass, replace

import torch

from mbrl_flat.data.batch import Batch
from mbrl_flat.data.episode import Episode
from mbrl_flat.diagnostics.inspection import measured_weights
from mbrl_flat.diagnostics.probe import ProbedRun
from mbrl_flat.diagnostics.value_error import Truncation, value_error
from mbrl_flat.interfaces import Inspectable
from mbrl_flat.runtime.seeding import restored_rng


@torch.no_grad()
def with_critic(agent: Inspectable, episode: Episode) -> Episode:
    """Replace an episode's estimates by those of the agent's critic at its observations.

    Args:
        agent: Whose critic; it and all random streams stay as they are.
        episode: The record.

    Returns:
        The same record with ``value`` ``[T]`` of the critic.
    """
    reward = episode.reward[None]
    batch = Batch(
        obs={name: value[None] for name, value in episode.obs.items()},
        action=episode.action[None],
        reward=reward,
        terminated=episode.ends[None].to(reward.dtype),
    )
    with measured_weights(agent), restored_rng():
        latent = agent.posterior(batch)[0, :-1]
        return replace(episode, value=agent.value(latent).cpu())


@dataclass(frozen=True, kw_only=True)
class ValueErrorProbe:
    """The three errors of a saved run, as ``probe/value``, ``probe/planner`` and ``probe/mixed``.

    Attributes:
        truncation: See ``value_error.py``.
        tolerance: Largest weight of what lies beyond a time limit, in (0, 1].
    """

    truncation: Truncation = "bootstrap"
    tolerance: float = 0.05

    def measure_run(self, run: ProbedRun) -> dict[str, float]:
        """Play episodes by the policy and by the planner, and compare."""
        followed, planned = run.play("policy"), run.play("eval")
        mixed = [with_critic(run.agent, episode) for episode in planned]
        parts = {"value": followed, "planner": planned, "mixed": mixed}
        return {
            f"probe/{kind}/{name}": value
            for kind, episodes in parts.items()
            for name, value in value_error(
                episodes,
                run.agent.discount,
                truncation=self.truncation,
                tolerance=self.tolerance,
            ).items()
        }
