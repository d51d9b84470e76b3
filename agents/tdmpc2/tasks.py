r"""What an agent of several tasks knows of each, and where a latent keeps it.

    [ z | e | m | gamma ]

z is what is learned of the state. The learned embedding e of the task is read by every network
beside z, the mask m says which of the padded actions the task has, and gamma is its discount. The
last three are the task's alone: whatever predicts a latent predicts z and copies the rest.
A latent of a single task is z, and every function here returns what it was given.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3.2 ("Training generalist
    TD-MPC2 agents") and the official code.

Deviations from the paper:
    Embeddings are brought back into the unit ball after each step of the optimizer, not when they
    are looked up: the loss stays a function of the weights, so that it can be evaluated, perturbed
    and differentiated like any other. A perturbation of radius rho may leave the ball by rho.
    Only the world model's loss trains them; in the official code the gradients of the policy's
    loss are left in them and go into the next step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.errors import UserError
from mbrl_flat.specs import Continuous, EnvSpec


@dataclass(frozen=True, kw_only=True)
class LatentLayout:
    """Where in a latent is what.

    Attributes:
        latent: Size D of z.
        embedding: Size E of the embedding; 0 where there is a single task.
        action: Number A of actions.
    """

    latent: int
    embedding: int
    action: int

    @classmethod
    def of(cls, spec: EnvSpec, config: TDMPC2Config) -> "LatentLayout":
        """Lay out the latents of an agent."""
        return cls(
            latent=config.dims["latent_dim"], embedding=config.task_dim, action=spec.action.size
        )

    @property
    def input_size(self) -> int:
        """Features of a latent that networks are given: z and the embedding."""
        return self.latent + self.embedding

    def state(self, latent: Tensor) -> Tensor:
        """Return z ``[..., D]``, what the latent says of the environment's state."""
        return latent[..., : self.latent] if self.embedding else latent

    def network_input(self, latent: Tensor) -> Tensor:
        """What networks are given of a latent: z and the embedding, ``[..., D + E]``."""
        return latent[..., : self.input_size] if self.embedding else latent

    def with_task_of(self, latent: Tensor, state: Tensor) -> Tensor:
        """A latent of the state z ``[..., D]`` and of the task that another latent is of.

        Args:
            latent: ``[..., D + E + A + 1]``, broadcast; what it says of the task is copied.
            state: z of the result.

        Returns:
            z followed by embedding, mask and discount; z alone where there is a single task.
        """
        if not self.embedding:
            return state
        task = latent[..., self.latent :].expand(*state.shape[:-1], -1)
        return torch.cat([state, task], -1)

    def mask(self, latent: Tensor) -> Tensor | None:
        """Ones for the actions that the task has, ``[..., A]``; None where it has all."""
        return latent[..., self.input_size : -1] if self.embedding else None

    def discount(self, latent: Tensor, single: float) -> Tensor | float:
        """The task's discount ``[...]``, or that of the single task."""
        return latent[..., -1] if self.embedding else single


class TaskTable(nn.Module):
    """Embedding, actions and discount of each task.

    Args:
        spec: The shapes, and the tasks.
        config: Sizes, coefficients and rates; see ``TDMPC2Config``.

    Raises:
        UserError: If there are no tasks to tell apart.
    """

    facts: Tensor
    """Mask and discount of each task ``[K, A + 1]``."""

    def __init__(self, spec: EnvSpec, config: TDMPC2Config) -> None:
        super().__init__()
        if not spec.tasks or not isinstance(spec.action, Continuous):
            raise UserError(
                f"agent.config.task_dim={config.task_dim} is for several tasks with continuous "
                f"actions; use env=multitask, or leave it at 0."
            )
        self.embedding = nn.Embedding(len(spec.tasks), config.task_dim)
        nn.init.uniform_(self.embedding.weight, -0.02, 0.02)
        facts = torch.zeros(len(spec.tasks), spec.action.size + 1)
        for row, task in zip(facts, spec.tasks, strict=True):
            row[: task.action_size] = 1.0
            row[-1] = config.discount(task)
        self.register_buffer("facts", facts, persistent=False)

    def forward(self, task: Tensor) -> Tensor:
        """Return what follows z in a latent, of task indices ``[..., 1]``: ``[..., E + A + 1]``."""
        index = task[..., 0].long()
        return torch.cat([self.embedding(index), self.facts[index]], -1)

    @torch.no_grad()
    def project(self) -> None:
        """Shorten embeddings that are longer than 1."""
        weight = self.embedding.weight
        weight.div_(torch.linalg.vector_norm(weight, dim=-1, keepdim=True).clamp(min=1.0))


def make_task_table(spec: EnvSpec, config: TDMPC2Config) -> TaskTable | None:
    """Build the table, where tasks are to be told apart.

    Args:
        spec: The shapes, and the tasks.
        config: Sizes, coefficients and rates; see ``TDMPC2Config``.

    Returns:
        The table; None for a single task.

    Raises:
        UserError: If several tasks have no embedding.
    """
    if config.task_dim:
        return TaskTable(spec, config)
    if len(spec.tasks) > 1:
        raise UserError(
            f"agent=tdmpc2 tells {len(spec.tasks)} tasks apart by a learned embedding; "
            f"set agent.config.task_dim=96."
        )
    return None
