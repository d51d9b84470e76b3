"""What an agent has to know of an environment, and nothing more."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Continuous:
    """Actions in the box [-1, 1]^dim."""

    dim: int

    @property
    def size(self) -> int:
        """Number of features of an action as the agent sees it."""
        return self.dim

    def project(self, action: Tensor) -> Tensor:
        """Clamp raw planner output ``[..., dim]`` to the box; the gradient passes inside it."""
        return action.clamp(-1.0, 1.0)

    def random(self, num: int, rng: np.random.Generator) -> Tensor:
        """Draw ``num`` uniform actions, float32 ``[num, dim]``."""
        return torch.from_numpy(rng.uniform(-1.0, 1.0, (num, self.dim)).astype(np.float32))

    def to_env(self, action: Tensor) -> np.ndarray:
        """Turn agent actions ``[N, dim]`` into what the environment takes."""
        return action.cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """One of ``num`` choices; agents see and store it as a one-hot vector."""

    num: int

    @property
    def size(self) -> int:
        """Number of features of an action as the agent sees it."""
        return self.num

    def project(self, action: Tensor) -> Tensor:
        """One-hot of the largest entry of ``[..., num]``, with a straight-through gradient."""
        hard = torch.nn.functional.one_hot(action.argmax(-1), self.num).to(action.dtype)
        return hard + (action - action.detach())

    def random(self, num: int, rng: np.random.Generator) -> Tensor:
        """Draw ``num`` uniform choices as one-hot float32 ``[num, num_choices]``."""
        choices = torch.from_numpy(rng.integers(self.num, size=num))
        return torch.nn.functional.one_hot(choices, self.num).float()

    def to_env(self, action: Tensor) -> np.ndarray:
        """Turn agent actions ``[N, num]`` into integers ``[N]``."""
        return action.argmax(-1).cpu().numpy()


TASK = "task"
"""Entry of the observation that says which of several tasks this is: its index, ``[1]``."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One of several tasks whose observations and actions are padded to common sizes.

    Attributes:
        name: The task.
        obs_size: Features of its observations; those after them are zero.
        action_size: Its actions; those after them do nothing.
        episode_length: Longest episode in agent steps.
        score_range: Returns that count as 0 and as 1 of the normalised score.
    """

    name: str
    obs_size: int
    action_size: int
    episode_length: int
    score_range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Shapes and units of one environment.

    Attributes:
        obs: Shape of each entry of the observation, such as ``{"state": (67,)}``.
        action: ``Continuous(dim=A)`` or ``Discrete(num=A)``.
        episode_length: Longest episode in agent steps.
        action_repeat: Simulator steps (frames) per agent step.
        score_range: Returns that count as 0 and as 1 of the normalised score, where there are any.
        images: Entries that are images ``[C, height, width]`` in uint8; the others are float32.
        frame_stack: Consecutive images that each of these joins along its channels, oldest first.
        tasks: What is known of each of several tasks, in the order of their indices in the entry
            ``task`` of the observation. Empty where there is one task, and no such entry.
        native: Spaces of the environment before they were adapted, by what a message calls them.
    """

    obs: Mapping[str, tuple[int, ...]]
    action: Continuous | Discrete
    episode_length: int
    action_repeat: int = 1
    score_range: tuple[float, float] | None = None
    images: frozenset[str] = frozenset()
    frame_stack: int = 1
    tasks: tuple[TaskSpec, ...] = ()
    native: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def observed(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is seen of the state: all entries but the index of the task."""
        return {name: shape for name, shape in self.obs.items() if not self.tasks or name != TASK}
