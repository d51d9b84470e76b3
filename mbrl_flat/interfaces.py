"""Protocols between packages. Structural: nothing has to inherit.

The data flows downwards::

    EnvFactory -> environment -> Replay -> Batch -> targets (once, without gradient)
        -> optimizer.step(closure over loss(batch, targets))
        -> Planner and policy -> Metrics -> Logger
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.data.batch import Batch

if TYPE_CHECKING:  # an extra: optimizers and diagnostics do without it
    import gymnasium as gym

Observation = dict[str, Tensor]
"""Named, batch-first tensors ``[B, ...]``."""

Targets = dict[str, Tensor]
"""Everything in a loss that the weights under optimization must not move."""

Metrics = dict[str, Tensor | float]
"""Detached scalars; they are read from the device once, when they are logged."""

AgentState = dict[str, Tensor]
"""What an agent carries from step to step for each of N environments; every tensor is [N, ...]."""

Mode = Literal["explore", "eval", "policy"]
"""Plan with exploration noise, plan without it, or sample the policy prior alone."""


class Prediction(NamedTuple):
    """What a world model expects of one step, for N latents."""

    latent: Tensor
    """``[N, D]``."""
    reward: Tensor
    """Expected reward ``[N]``."""
    cont: Tensor
    """Probability that the task continues ``[N]``; ones where the model has no termination head."""


class CategoricalLoss(NamedTuple):
    """The cross entropies in a training loss, taken apart: first logits, then what they cost."""

    outputs: Callable[[], Mapping[str, Tensor]]
    """Logits of any shapes by name, at the current weights; deterministic, with their graph."""
    loss: Callable[[Mapping[str, Tensor]], Tensor]
    """From such logits to the cross entropies' weighted sum, a scalar; convex in the logits."""


class ProbeLoss(NamedTuple):
    """A training loss made a deterministic function of the weights."""

    loss: Callable[[], Tensor]
    """Scalar at the current weights: fixed batch and targets, no dropout, float32, eager."""
    modules: dict[str, list[nn.Parameter]]
    """Trained parameters by module name (``encoder``, ``dynamics``, ...); no parameter twice."""
    categorical: CategoricalLoss | None = None
    """That part of ``loss`` which is cross entropies, for agents that take it apart."""


class EnvFactory(Protocol):
    """Makes one environment."""

    def __call__(self, *, seed: int, render: bool = False) -> "gym.Env[Any, Any]":
        """Build an environment whose every random draw follows from ``seed``."""
        ...


class Agent(Protocol):
    """Acts, learns and can be saved; knows neither the optimizer's method nor the environment."""

    @property
    def sequence_length(self) -> int:
        """Transitions in a subsequence of the batches that ``update`` takes."""
        ...

    @property
    def batch_size(self) -> int:
        """Subsequences in a batch that ``update`` takes."""
        ...

    @property
    def across_episodes(self) -> bool:
        """Whether subsequences run over the ends of episodes, those still being played included."""
        ...

    @property
    def batch_coupling(self) -> str:
        """What makes the loss of one row depend on the others, so that a batch cannot be split.

        Empty where only means over rows do, and what
        ``mbrl_flat.distributed.batch_shard`` takes care of.
        """
        ...

    def initial_state(self, num_envs: int) -> AgentState:
        """Return the state of ``num_envs`` environments before their first step."""
        ...

    def reset_state(self, state: AgentState, is_first: Tensor) -> AgentState:
        """Return ``state`` with the rows where ``is_first`` ``[N]`` made new."""
        ...

    def act(
        self, obs: Observation, state: AgentState, *, mode: Mode, generator: Generator | None
    ) -> tuple[Tensor, AgentState]:
        """Choose actions ``[N, A]`` for observations ``[N, ...]``; draw only from ``generator``.

        The state that comes back has ``value`` ``[N]``: the estimate that goes with the choice.
        """
        ...

    def update(self, batch: Batch) -> Metrics:
        """Make one learning step on a batch of sequences ``[B, T]``."""
        ...

    def param_norm(self) -> Tensor:
        """Euclidean norm of the weights that the world-model loss trains."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update and the next action depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


@runtime_checkable
class LoadsPretrained(Protocol):
    """An agent that takes weights alone: of a pretrained agent, of its authors' checkpoints."""

    def load_pretrained(self, state: Any) -> None:
        """Convert what such a file holds and act with it; refuse what does not fit."""
        ...


class Logger(Protocol):
    """Takes rows of metrics."""

    def write(self, metrics: Mapping[str, float], *, step: int, frame: int) -> None:
        """Take one row."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class RunLogger(Logger, Protocol):
    """A logger whose record can be cut back to where a checkpoint was made."""

    @property
    def position(self) -> int:
        """Bytes written so far."""
        ...

    def truncate(self, position: int) -> None:
        """Forget everything after ``position``."""
        ...


class Measurement(Protocol):
    """Evaluation or probe on a schedule; leaves the agent and every random stream as they are."""

    def __call__(self, step: int) -> Mapping[str, float]:
        """Measure; an empty row is not logged."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next measurement depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


@runtime_checkable
class Inspectable(Protocol):
    """What the probes ask of an agent. No call changes it, moves a random stream or leaves a grad.

    ``probe_loss`` and ``posterior`` take batches of any size; the rest runs without gradient.
    """

    discount: float

    def probe_loss(self, batch: Batch) -> ProbeLoss:
        """Return the world-model loss on ``batch`` with its targets computed here, once."""
        ...

    def posterior(self, batch: Batch) -> Tensor:
        """Latents given the observations ``[B, T + 1, D]``."""
        ...

    def predict(self, latent: Tensor, action: Tensor) -> Prediction:
        """One open-loop step from latents ``[N, D]`` with actions ``[N, A]``."""
        ...

    def value(self, latent: Tensor) -> Tensor:
        """The critic's discounted value of the policy ``[N]``, averaged over heads and actions."""
        ...


@runtime_checkable
class TrainsWithOneOptimizer(Protocol):
    """Exposes the optimizer of its world model."""

    optimizer: torch.optim.Optimizer


@runtime_checkable
class SeveralTasks(Protocol):
    """An agent that learns several tasks, each with a discount of its own."""

    task_discounts: tuple[float, ...]
    """In the order of the spec's tasks; empty where there is one."""
    latent_size: int
    """Features of a latent that are learned; those after them say which task it is."""


@runtime_checkable
class PredictsTermination(Protocol):
    """An agent that may have learned when a task ends."""

    predicts_termination: bool
    """Whether the ``cont`` of ``predict`` is learned; false without that head."""


@runtime_checkable
class ShowsFeatures(Protocol):
    """An agent whose latents hold more than its heads read, such as earlier keys and values."""

    def features(self, latent: Tensor) -> Tensor:
        """What the heads read ``[..., F]`` of latents ``[..., D]``."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """What the probe of open-loop videos asks of an agent beside ``Inspectable``."""

    def decode(self, latent: Tensor) -> Observation:
        """Expected observations ``[..., ...]`` of latents ``[..., D]``, images in [0, 1]."""
        ...
