"""The policy prior of TD-MPC2: a squashed Gaussian, trained to maximise the Q-functions.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Eq. 6, and the official code.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.tasks import LatentLayout
from mbrl_flat.distributed.batch_shard import draw_shard, gather_shards
from mbrl_flat.models import kernels
from mbrl_flat.models.functional import gaussian_log_prob, percentile_range, tanh_log_det
from mbrl_flat.models.mlp import MLP
from mbrl_flat.specs import EnvSpec


class PolicySample(NamedTuple):
    """Actions drawn from the policy."""

    action: Tensor
    """In the action space as the agent sees it, ``[..., A]``."""
    entropy: Tensor
    """Minus the log density of the squashed action ``[...]``."""
    scaled_entropy: Tensor
    """Minus A times the log density before squashing ``[...]``: what the loss rewards."""


class Policy(nn.Module):
    """Squashed Gaussian over actions given a latent.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``TDMPC2Config``.
    """

    def __init__(self, spec: EnvSpec, config: TDMPC2Config) -> None:
        super().__init__()
        dims = config.dims
        self.space = spec.action
        self.low, self.high = config.log_std_min, config.log_std_max
        self.layout = LatentLayout.of(spec, config)
        self.net = MLP(self.layout.input_size, [dims["mlp_dim"]] * 2, 2 * spec.action.size)
        self._parts = tuple(self.modules())

    @property
    def is_hooked(self) -> bool:
        """Whether anybody wants to be told what a module returns."""
        return any(m._forward_hooks or m._forward_pre_hooks for m in self._parts)

    def forward(self, latent: Tensor, noise: Tensor | None = None) -> PolicySample:
        r"""Sample ``tanh(mean + std * noise)``.

        ``log_std = low + (high - low) (tanh(raw) + 1) / 2``. The scaled entropy is, as in the
        official code, minus the Gaussian log density times the number of actions: the change of
        volume by tanh drops out of it. Actions that the task does not have are zero, and count in
        neither.

        Args:
            latent: Latents of the encoder or the dynamics, ``[..., D]``.
            noise: Standard normal ``[..., A]``; drawn from torch's global stream if absent.

        Returns:
            Actions and entropies.
        """
        out = self.net(self.layout.network_input(latent))
        noise = draw_noise(self, out) if noise is None else noise
        mask = self.layout.mask(latent)
        aligned = noise.shape == (*out.shape[:-1], self.space.size)
        if mask is None and aligned and kernels.usable(out, noise):
            return self._fused(out, noise)
        return self._sample(out, noise, mask)

    def _fused(self, out: Tensor, noise: Tensor) -> PolicySample:
        def reference(out: Tensor) -> Tensor:
            sample = self._sample(out, noise, None, raw=True)
            return torch.cat([sample[0], sample[1][..., None], sample[2][..., None]], -1)

        bounds = self.low, self.high
        squashed, *entropies = kernels.squash(out, noise, bounds, reference=reference)
        return PolicySample(self.space.project(squashed), *entropies)

    def _sample(
        self, out: Tensor, noise: Tensor, mask: Tensor | None, *, raw: bool = False
    ) -> PolicySample:
        """Sample from what the network says ``[..., 2 A]``; ``raw`` actions are not projected."""
        mean, deviation = out.chunk(2, -1)
        log_std = self.low + 0.5 * (self.high - self.low) * (torch.tanh(deviation) + 1.0)
        size = None
        if mask is not None:
            mean, log_std, noise, size = mean * mask, log_std * mask, noise * mask, mask.sum(-1)
        squashed = torch.tanh(mean + noise * log_std.exp())
        log_prob = gaussian_log_prob(noise, log_std, size)
        return PolicySample(
            action=squashed if raw else self.space.project(squashed),
            entropy=tanh_log_det(squashed) - log_prob,
            scaled_entropy=-(self.space.size if size is None else size) * log_prob,
        )


def draw_noise(policy: Policy, like: Tensor) -> Tensor:
    """Standard normal ``[..., A]`` for latents ``like`` ``[..., D]``, from the global stream."""
    draw = partial(torch.randn, device=like.device, dtype=like.dtype)
    return draw_shard(draw, (*like.shape[:-1], policy.space.size))


class RunningScale:
    """Running distance of the 5th and 95th percentile of Q-values, at least one.

    ``S <- (1 - tau) S + tau max(1, P95 - P5)``, from ``S = 1``.
    """

    def __init__(self, rate: float, device: torch.device) -> None:
        self.rate = rate
        self.value = torch.ones((), device=device)

    def update(self, q: Tensor) -> None:
        """Move towards the spread of values ``[B]``, those of other processes' rows included."""
        spread = percentile_range(gather_shards(q)).clamp(min=1.0).to(self.value.dtype)
        self.value.lerp_(spread.where(spread.isfinite(), self.value), self.rate)


def policy_loss(sample: PolicySample, q: Tensor, scale: Tensor, config: TDMPC2Config) -> Tensor:
    r"""Policy loss over rollout latents.

    .. math::
        \frac{1}{H + 1} \sum_{t=0}^{H} decay^t \, mean_b
        \left[ -\left(\alpha \hat{\mathcal H}_t + Q_t / S\right) \right]

    Args:
        sample: Actions at ``z_0..z_H``, leading shape ``[B, H + 1]``.
        q: Their values ``[B, H + 1]``, differentiable in the action.
        scale: Running scale S.
        config: Sizes, coefficients and rates; see ``TDMPC2Config``.

    Returns:
        Scalar loss.
    """
    steps = torch.arange(q.shape[1], device=q.device, dtype=q.dtype)
    gain = config.entropy_coef * sample.scaled_entropy + q / scale
    return -(gain.mean(0) * config.temporal_decay**steps).mean()
