r"""The actor-critic that DreamerV3, STORM and TWISTER share: REINFORCE on imagined returns.

With imagined rewards ``r``, continuation probabilities ``c`` and values ``v`` of the critic,

    R_t = r_t + gamma c_{t+1} [(1 - lambda) v_{t+1} + lambda R_{t+1}]
    actor:  -w_t [ sg((R_t - v_t) / S) log pi(a_t | s_t) + eta H(pi(. | s_t)) ]
    critic:  w_t [ CE(critic_t, R_t) + slow-critic term ],     w_t = prod_{s <= t} gamma c_s

where ``S = max(1, EMA(P95 - P5))`` of the returns. Every weight, bootstrap and start state comes
from the model as it was before it was perturbed; nothing here knows the model's optimizer.

What the papers do differently is data in ``ActorCriticConfig``.

References:
    Hafner et al., arXiv:2301.04104, Section "Actor critic learning" (DreamerV3); Zhang et al.,
    arXiv:2310.09615 (STORM); Burchi & Timofte, arXiv:2503.04416 (TWISTER).
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from mbrl_flat.agents.actors import CategoricalActor, GaussianActor
from mbrl_flat.agents.imagination import Imagined
from mbrl_flat.distributed.batch_shard import gather_shards
from mbrl_flat.errors import UserError
from mbrl_flat.interfaces import Metrics
from mbrl_flat.models.categorical import lambda_returns
from mbrl_flat.models.functional import full_precision, percentile
from mbrl_flat.optim.synchronization import average_over_rows
from mbrl_flat.settings import CheckedSettings, setting


class Bins(Protocol):
    """A scalar as a distribution over bins: ``TwoHot`` or ``SymexpTwoHot``."""

    @property
    def num_bins(self) -> int:
        """Number of bins."""
        ...

    def position(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Where scalars lie between the bins."""
        ...

    def decode(self, logits: Tensor) -> Tensor:
        """Expected scalars of logits."""
        ...

    def cross_entropy(self, logits: Tensor, position: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy of logits against scalars at these positions."""
        ...


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(CheckedSettings):
    """What the papers choose differently; the defaults are DreamerV3's.

    Attributes:
        discount: Factor ``gamma`` per step, in [0, 1].
        lambda_: Mixing weight of the returns.
        entropy_coef: Weight ``eta`` of the policy's entropy.
        low_percentile: Lower end of the range of returns.
        high_percentile: Upper end of the range of returns, above the lower one, at most 100.
        range_rate: Rate at which both ends follow the returns.
        weighting: ``discounted`` weighs step t by the chance to get there, discounted
            (DreamerV3); ``discounted_later`` likewise, undiscounted for the first step (TWISTER's
            code: all weights are larger by ``1 / gamma``); ``uniform`` does not (STORM).
        percentiles: ``linear`` interpolates between values; ``kth`` takes the value of that rank
            (STORM's code).
        slow_critic: ``regularise`` pulls the critic to the slow critic's prediction (DreamerV3,
            TWISTER); ``second_target`` to the returns that the slow critic gives (STORM).
        slow_rate: Share of the way that the slow critic moves in an update.
        replay_coef: Weight of the critic's loss on replayed states; 0 leaves it out.
    """

    discount: float = setting(1.0 - 1.0 / 333.0, "[0, 1]")
    lambda_: float = setting(0.95, "[0, 1]")
    entropy_coef: float = 3e-4
    low_percentile: float = 5.0
    high_percentile: float = 95.0
    range_rate: float = setting(0.01, "[0, 1]")
    weighting: Literal["discounted", "discounted_later", "uniform"] = "discounted"
    percentiles: Literal["linear", "kth"] = "linear"
    slow_critic: Literal["regularise", "second_target"] = "regularise"
    slow_rate: float = setting(0.02, "[0, 1]")
    replay_coef: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.low_percentile < self.high_percentile <= 100.0:
            raise UserError(
                f"Percentiles must satisfy 0 <= low < high <= 100, got "
                f"{self.low_percentile} and {self.high_percentile}."
            )
        if self.slow_critic == "second_target" and self.replay_coef != 0.0:
            raise UserError("slow_critic=second_target has no replay loss; set replay_coef=0.")


class Replayed(NamedTuple):
    """Recorded sequences as the critic sees them; every state also began an imagined rollout."""

    features: Tensor
    """``[B, T, F]``."""
    reward: Tensor
    """``[B, T - 1]``; ``reward[:, t]`` follows ``features[:, t]``."""
    terminated: Tensor
    """``[B, T - 1]``: whether the task ended with that step."""
    is_last: Tensor
    """Where an episode ended and the next step did not happen, bool ``[B, T]``."""


class BehaviourLoss(NamedTuple):
    """Losses of actor and critic, scalars with gradient, and their parts."""

    actor: Tensor
    critic: Tensor
    metrics: Metrics
    """Reported under ``train/``."""


class ActorCritic(nn.Module):
    """Policy, critic, the critic's slow copy and the running range of returns.

    Args:
        actor: The policy network, from latents to a distribution over actions.
        critic: Network from features ``[..., F]`` to logits ``[..., num_bins]``.
        bins: What the critic's logits stand for.
        config: Discounts, coefficients and learning rates of actor and critic.
    """

    low: Tensor
    """Lower end of the range of returns, which follows them; a scalar."""
    high: Tensor
    """Upper end of it."""

    def __init__(
        self,
        actor: CategoricalActor | GaussianActor,
        critic: nn.Module,
        bins: Bins,
        config: ActorCriticConfig,
    ) -> None:
        super().__init__()
        self.actor, self.critic, self.bins, self.config = actor, critic, bins, config
        self.slow_critic = deepcopy(critic).requires_grad_(False)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def act(self, features: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Sample actions ``[..., A]``."""
        return self.actor.act(features, generator=generator)

    def value(self, features: Tensor) -> Tensor:
        """The critic's value ``[...]`` of features ``[..., F]``, in full precision."""
        return self.bins.decode(full_precision(self.critic(features)))

    def losses(self, imagined: Imagined, replayed: Replayed | None = None) -> BehaviourLoss:
        """Compute both losses on a rollout of H steps from N states.

        Args:
            imagined: Imagined latents, actions and rewards, ``[B, H, ...]``.
            replayed: The sequences that it started from, N = B T in this order; needed where
                ``replay_coef`` is not zero.

        Returns:
            The losses.
        """
        config = self.config
        logits = full_precision(self.critic(imagined.features))
        values = self.bins.decode(logits.detach())
        with torch.no_grad():
            slow_values = self.bins.decode(full_precision(self.slow_critic(imagined.features)))
            returns = self._returns(imagined, values)
            weight = self._weight(imagined)
            self._follow(returns)
            scale = (self.high - self.low).clamp(min=1.0)
            advantage = (returns - values[:, :-1]) / scale
        score = self.actor.score(imagined.features[:, :-1], imagined.action)
        gain = score.log_prob * advantage + config.entropy_coef * score.entropy
        actor_loss = -(weight * gain).mean()
        second = (
            slow_values[:, :-1]
            if config.slow_critic == "regularise"
            else self._returns(imagined, slow_values)
        )
        critic_loss = (weight * self._critic_loss(logits[:, :-1], returns, second)).mean()
        metrics: Metrics = {
            "train/actor_loss": actor_loss.detach(),
            "train/critic_loss": critic_loss.detach(),
            "train/policy_entropy": score.entropy.detach().mean(),
            "train/imagined_return": returns.mean(),
            "train/imagined_reward": imagined.reward.mean(),
            "train/return_range": scale,
            "train/advantage_magnitude": advantage.abs().mean(),
        }
        if replayed is not None and config.replay_coef > 0.0:
            replay_loss = self._replay_loss(replayed, returns[:, 0])
            metrics["train/replay_critic_loss"] = replay_loss.detach()
            critic_loss = critic_loss + config.replay_coef * replay_loss
        return BehaviourLoss(actor_loss, critic_loss, metrics)

    def _returns(self, imagined: Imagined, values: Tensor) -> Tensor:
        discount = self.config.discount * imagined.cont[:, 1:]
        return lambda_returns(imagined.reward, discount, values, lambda_=self.config.lambda_)

    def _weight(self, imagined: Imagined) -> Tensor:
        """Weights ``[N, H]`` of the steps."""
        if self.config.weighting == "uniform":
            return torch.ones_like(imagined.reward)
        weight = (self.config.discount * imagined.cont[:, :-1]).cumprod(1)
        later = self.config.weighting == "discounted_later"
        return weight / self.config.discount if later else weight

    def _follow(self, returns: Tensor) -> None:
        """Move both ends of the range towards the percentiles of these returns."""
        config = self.config
        ordered = gather_shards(returns.flatten()).sort().values
        for end, percent in (
            (self.low, config.low_percentile),
            (self.high, config.high_percentile),
        ):
            new = percentile(ordered, percent, kth=config.percentiles == "kth")
            end.lerp_(new.where(new.isfinite(), end), config.range_rate)

    def _critic_loss(self, logits: Tensor, returns: Tensor, second: Tensor) -> Tensor:
        first = self.bins.cross_entropy(logits, self.bins.position(returns))
        return first + self.bins.cross_entropy(logits, self.bins.position(second))

    def _replay_loss(self, replayed: Replayed, imagined_return: Tensor) -> Tensor:
        r"""Critic loss on recorded steps, bootstrapped with what imagination gave there.

        .. math::
            R_t = r_t + \gamma (1 - d_t) [(1 - \lambda_t) \hat R_{t+1} + \lambda_t R_{t+1}]

        with ``Rhat`` the return of the rollout imagined from that state, and ``lambda_t = 0``
        where state t + 1 is the last of its episode.

        Args:
            replayed: The recorded steps.
            imagined_return: ``Rhat`` ``[B T]``.

        Returns:
            Scalar loss.
        """
        config = self.config
        logits = full_precision(self.critic(replayed.features[:, :-1]))
        with torch.no_grad():
            bootstrap = imagined_return.view(replayed.is_last.shape)
            discount = config.discount * (1.0 - replayed.terminated)
            lambda_ = config.lambda_ * (~replayed.is_last[:, 1:]).to(discount.dtype)
            returns = lambda_returns(replayed.reward, discount, bootstrap, lambda_=lambda_)
            slow = self.bins.decode(full_precision(self.slow_critic(replayed.features[:, :-1])))
        weight = (~replayed.is_last[:, :-1]).to(logits.dtype)
        return (weight * self._critic_loss(logits, returns, slow)).mean()

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """Move the slow critic ``slow_rate`` of the way towards the critic."""
        torch._foreach_lerp_(
            list(self.slow_critic.parameters()),
            list(self.critic.parameters()),
            self.config.slow_rate,
        )


class BoundedOptimizer:
    """Parameters, their own optimizer and a bound on the norm of their gradient.

    Args:
        modules: Networks whose parameters the optimizer moves.
        make: Makes the optimizer.
        max_grad_norm: Bound on the joint norm; None for an optimizer that clips by itself.
    """

    def __init__(
        self,
        modules: list[nn.Module],
        make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        *,
        max_grad_norm: float | None,
    ) -> None:
        self.params = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.optimizer = make(self.params)
        self.max_grad_norm = max_grad_norm

    def step(self, loss: Tensor, *, step_allowed: Callable[[Tensor], bool]) -> Tensor:
        """Step on the gradients that ``loss`` (a scalar) left, if ``step_allowed(norm)``.

        Returns:
            Norm of the gradients before clipping, a scalar.
        """
        average_over_rows(self.params, loss)
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = nn.utils.get_total_norm(grads)
        if self.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.params, self.max_grad_norm, norm)
        if step_allowed(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm
