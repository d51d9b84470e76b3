r"""Imagination: roll a policy out in a world model, from many start states at once.

What the recurrent and the transformer agents share. A model's *state* is a dictionary of tensors
``[N, ...]``, one row for each of N imagined or real environments: the recurrent model keeps its
deterministic and its categorical part there, a transformer also its cache of keys and values. The
state travels in and out; a model holds none.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, Section 3.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import Metrics, Observation, Targets

ModelState = dict[str, Tensor]
"""State of a world model, every tensor ``[N, ...]``."""


Heads = Mapping[str, Tensor]
"""A tensor for each head that is trained by cross entropy: ``reward`` and ``continue``."""


class ModelOutput(NamedTuple):
    """The world-model loss and what comes with it."""

    loss: Tensor
    """Scalar."""
    metrics: Metrics
    """Its parts, detached."""
    states: ModelState
    """Posterior states of all ``T + 1`` observations, ``[B, T + 1, ...]``, detached: those that
    ``observe_batch`` gives for the same batch and targets."""


class ImaginationModel(Protocol):
    """What behaviour learning and acting ask of a world model (an ``nn.Module``).

    Samples are drawn from ``generator``, or from torch's global stream where it is None. The first
    observation of a batch is context: it starts the state, and the loss does not judge it.
    """

    feature_size: int
    """Size F of what actor and critic see."""

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by the names that ``only=`` selects."""
        ...

    def targets(self, batch: Batch) -> Targets:
        """Everything random or fixed that the loss needs beside the batch; once, no gradient.

        Gumbel noise of samples, masks and crops belong here: they come from torch's global stream,
        and with them the loss is a function of the weights alone (but for dropout in training).
        """
        ...

    def loss(self, batch: Batch, targets: Targets) -> ModelOutput:
        """The loss at the current weights."""
        ...

    def head_logits(self, batch: Batch, targets: Targets) -> Heads:
        """What the heads say within ``loss``: ``[B, T, bins]`` and ``[B, T]``."""
        ...

    def head_losses(self, logits: Heads, batch: Batch, targets: Targets) -> Heads:
        """What ``loss`` makes of such logits, scalars; they count once in the whole."""
        ...

    def observe_batch(self, batch: Batch, targets: Targets) -> ModelState:
        """Posterior states ``[B, T + 1, ...]`` of a batch, without gradient."""
        ...

    def initial_state(self, num: int) -> ModelState:
        """States ``[num, ...]`` before anything was observed."""
        ...

    def observe(
        self,
        state: ModelState,
        action: Tensor,
        obs: Observation,
        is_first: Tensor,
        *,
        generator: Generator | None = None,
    ) -> ModelState:
        """Take in one observation.

        Args:
            state: States ``[N, ...]`` of the step before.
            action: Actions ``[N, A]`` that led here; ignored where ``is_first``.
            obs: Observations ``[N, ...]``.
            is_first: Where an episode begins, bool ``[N]``: the state is made new there.
            generator: Source of the samples.

        Returns:
            The posterior states.
        """
        ...

    def imagine(
        self,
        state: ModelState,
        action: Tensor,
        *,
        generator: Generator | None = None,
        most_likely: bool = False,
    ) -> ModelState:
        """Prior states ``[N, ...]`` after actions ``[N, A]``; sampled, or the most likely ones."""
        ...

    def pack(self, state: ModelState) -> Tensor:
        """Join a state ``[..., ...]`` to one vector ``[..., D]``, for the probes."""
        ...

    def unpack(self, latent: Tensor) -> ModelState:
        """Invert ``pack``: ``[..., D]`` to a state ``[..., ...]``."""
        ...

    def decode(self, features: Tensor) -> Observation:
        """Expected observations ``[..., ...]``, images in [0, 1]; empty without a decoder."""
        ...

    def begin_rollout(self, state: ModelState, horizon: int) -> ModelState:
        """Make states ready to be imagined on for ``horizon`` steps.

        A transformer computes the cache of all contexts in one batch here, with room for the
        steps to come; a recurrent model returns the state as it is. What comes back is continued
        once: ``imagine`` may write into it.
        """
        ...

    def features(self, state: ModelState) -> Tensor:
        """What actor and critic see ``[..., F]``."""
        ...

    def predict_reward(self, features: Tensor) -> Tensor:
        """Expected reward ``[...]`` of arriving in ``[..., F]``."""
        ...

    def predict_continue(self, features: Tensor) -> Tensor:
        """Probability ``[...]`` that the episode continues from ``[..., F]``, undiscounted."""
        ...


class Policy(Protocol):
    """Draws actions for features."""

    def act(self, features: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Sampled actions ``[N, A]`` for features ``[N, F]``."""
        ...


class Imagined(NamedTuple):
    """A rollout of H steps from N states; detached from the model."""

    features: Tensor
    """``[N, H + 1, F]``, the start included."""
    action: Tensor
    """``[N, H, A]``; ``action[:, t]`` is taken at ``features[:, t]``."""
    reward: Tensor
    """``[N, H]``; ``reward[:, t]`` is expected on arriving at ``features[:, t + 1]``."""
    cont: Tensor
    """``[N, H + 1]``: probability that the episode continues from ``features[:, t]``."""

    def starting_with(self, cont: Tensor) -> "Imagined":
        """Take the first ``cont`` of each rollout from elsewhere: N entries, such as ``[B, T]``."""
        first = cont.reshape(-1, 1)
        return self._replace(cont=torch.cat([first, self.cont[:, 1:]], 1))


def flatten_states(states: ModelState) -> ModelState:
    """Join the first two dimensions, ``[B, T, ...]`` to ``[B * T, ...]``."""
    return {name: value.flatten(0, 1) for name, value in states.items()}


@torch.no_grad()
def imagine(
    model: ImaginationModel,
    policy: Policy,
    state: ModelState,
    horizon: int,
    *,
    generator: Generator | None = None,
) -> Imagined:
    """Let ``policy`` act in ``model`` for ``horizon`` steps.

    Args:
        model: The world model, in evaluation mode (no dropout).
        policy: Chooses the actions.
        state: Start states ``[N, ...]``.
        horizon: Number of imagined steps H, at least 1.
        generator: Source of all samples.

    Returns:
        The rollout; no gradient reaches model or policy through it.
    """
    state = model.begin_rollout(state, horizon)
    features, actions = [model.features(state)], []
    for _ in range(horizon):
        action = policy.act(features[-1], generator=generator)
        state = model.imagine(state, action, generator=generator)
        actions.append(action)
        features.append(model.features(state))
    all_features = torch.stack(features, 1)
    return Imagined(
        features=all_features,
        action=torch.stack(actions, 1),
        reward=model.predict_reward(all_features[:, 1:]),
        cont=model.predict_continue(all_features),
    )
