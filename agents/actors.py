"""Policies on features: categorical for discrete actions, a bounded Gaussian for continuous ones.

References:
    Hafner et al., "Mastering Diverse Domains through World Models", arXiv:2301.04104, "Actor
    learning", and the official code.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.distributed.batch_shard import draw_shard
from mbrl_flat.models.categorical import draw_one_hot, straight_through, unimix
from mbrl_flat.models.functional import full_precision, gaussian_log_prob
from mbrl_flat.specs import Continuous, Discrete

_MIN_STD, _MAX_STD = 0.1, 1.0
"""Bounds of a Gaussian policy's deviation."""

NetworkFactory = Callable[[int], nn.Module]
"""Makes a network from features ``[..., F]`` to as many outputs as asked for."""


class Score(NamedTuple):
    """What a policy says of actions, each ``[...]``."""

    log_prob: Tensor
    """Log probability or density of the actions."""
    entropy: Tensor
    """Entropy of the distribution that they were drawn from."""


class Actor(Protocol):
    """A stochastic policy (an ``nn.Module``)."""

    def act(self, features: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Sample actions ``[..., A]`` for features ``[..., F]``."""
        ...

    def mode(self, features: Tensor) -> Tensor:
        """The most likely actions ``[..., A]``."""
        ...

    def score(self, features: Tensor, action: Tensor) -> Score:
        """Judge actions ``[..., A]``, with gradient."""
        ...


class CategoricalActor(nn.Module):
    """One-hot actions.

    Args:
        num: Number of choices.
        make_network: Makes the network.
        mix: Share of the uniform distribution in the policy.
    """

    def __init__(self, num: int, make_network: NetworkFactory, *, mix: float = 0.01) -> None:
        super().__init__()
        self.mix = mix
        self.network = make_network(num)

    def log_probs(self, features: Tensor) -> Tensor:
        """Log probabilities ``[..., A]`` of all choices, in full precision."""
        return unimix(full_precision(self.network(features)), self.mix)

    def act(self, features: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Sample one-hot actions ``[..., A]``."""
        return draw_one_hot(self.log_probs(features), generator=generator)

    def mode(self, features: Tensor) -> Tensor:
        """The most likely choices, one-hot ``[..., A]``."""
        return straight_through(self.log_probs(features).detach(), None)

    def score(self, features: Tensor, action: Tensor) -> Score:
        """Log probabilities of one-hot actions ``[..., A]``, and entropies."""
        log_probs = self.log_probs(features)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return Score((log_probs * action).sum(-1), entropy)


def into_box(action: Tensor) -> Tensor:
    """``a / max(1, |a|)``, entry by entry, of samples ``[..., A]``: what an environment acts on."""
    return action / action.abs().clamp(min=1.0)


class GaussianActor(nn.Module):
    r"""Independent normals with mean ``tanh(m)`` and a bounded deviation.

    .. math:: \sigma = \sigma_{min} + (\sigma_{max} - \sigma_{min})\, sigmoid(s + 2)

    Samples may leave the box; whoever takes them clamps them (:func:`into_box`), and the density
    stays that of the normal.

    Args:
        dim: Number of action entries.
        make_network: Makes the network.
    """

    def __init__(self, dim: int, make_network: NetworkFactory) -> None:
        super().__init__()
        self.network = make_network(2 * dim)

    def _moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = full_precision(self.network(features)).chunk(2, -1)
        spread = torch.sigmoid(raw + 2.0)
        return torch.tanh(mean), _MIN_STD + (_MAX_STD - _MIN_STD) * spread

    def act(self, features: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Sample actions ``[..., A]``."""
        mean, std = self._moments(features)
        draw = partial(torch.randn, generator=generator, device=mean.device, dtype=mean.dtype)
        noise = draw_shard(draw, mean.shape)
        return (mean + std * noise).detach()

    def mode(self, features: Tensor) -> Tensor:
        """The means ``[..., A]``."""
        return self._moments(features)[0].detach()

    def score(self, features: Tensor, action: Tensor) -> Score:
        """Log densities of actions ``[..., A]``, and entropies."""
        mean, std = self._moments(features)
        log_std = std.log()
        log_prob = gaussian_log_prob((action - mean) / std, log_std)
        size = action.shape[-1]
        entropy = log_std.sum(-1) + 0.5 * size * (1.0 + math.log(2.0 * math.pi))
        return Score(log_prob, entropy)


def make_actor(
    space: Continuous | Discrete,
    make_network: NetworkFactory,
    *,
    mix: float = 0.01,
) -> CategoricalActor | GaussianActor:
    """Build the policy that an action space asks for.

    Args:
        space: The environment's actions.
        make_network: Makes the network.
        mix: Share of the uniform distribution, for discrete actions.

    Returns:
        The policy.
    """
    if isinstance(space, Discrete):
        return CategoricalActor(space.num, make_network, mix=mix)
    return GaussianActor(space.dim, make_network)
