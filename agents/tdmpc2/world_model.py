r"""The implicit world model of TD-MPC2: encoder, dynamics, reward, termination and Q-functions.

    z_t = h(o_t),  z_{t+1} = d(z_t, a_t),  r_t = R(z_t, a_t),  Q_1..Q_K(z_t, a_t)

``targets`` is computed once, without gradient; ``loss`` is then a function of the weights and of
torch's global random stream (dropout) alone. So any optimizer may evaluate it as often as it
likes. Neither knows the optimizer. The policy prior lives in ``policy.py``.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3, Eq. 3-5.

Deviations from the paper:
    SimNorm groups are strided (a fixed permutation of latent features). The two Q-functions of a
    target, a plan or a policy update are drawn before they are evaluated, not after: the same
    distribution at two fifths of the cost.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _global_forward_hooks

from mbrl_flat.agents.tdmpc2 import fused_loss, fused_policy
from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.encoder import make_encoder
from mbrl_flat.agents.tdmpc2.fused_policy import FusedPolicy
from mbrl_flat.agents.tdmpc2.policy import Policy
from mbrl_flat.agents.tdmpc2.tasks import LatentLayout, make_task_table
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import CategoricalLoss, Metrics, Observation, Targets
from mbrl_flat.models.ensemble import EnsembleMLP
from mbrl_flat.models.functional import TwoHot
from mbrl_flat.models.mlp import MLP
from mbrl_flat.specs import TASK, EnvSpec


class LossOutput(NamedTuple):
    """The world-model loss and what comes with it."""

    loss: Tensor
    """Scalar."""
    metrics: Metrics
    """Its parts, detached."""
    latents: Tensor
    """Rollout ``z_0..z_H``, ``[B, H + 1, D]``, detached: what the policy learns on."""


def loss_metrics(loss: Tensor, parts: Mapping[str, Tensor]) -> Metrics:
    """What is logged of a loss and its parts, all scalars."""
    metrics: Metrics = {f"train/{name}_loss": value.detach() for name, value in parts.items()}
    return metrics | {"train/total_loss": loss.detach()}


class WorldModel(nn.Module):
    """Networks and their joint loss.

    Args:
        spec: The environment's shapes.
        config: Sizes, coefficients and rates; see ``TDMPC2Config``.
    """

    def __init__(self, spec: EnvSpec, config: TDMPC2Config) -> None:
        super().__init__()
        dims = config.dims
        self.config = config
        self.discount = config.discount(spec)
        self.two_hot = TwoHot(
            num_bins=config.num_bins, low=-config.bin_limit, high=config.bin_limit
        )
        self.obs_names = tuple(spec.observed)
        self.layout = LatentLayout.of(spec, config)
        latent, hidden = dims["latent_dim"], [dims["mlp_dim"]] * 2
        pair_size = self.layout.input_size + spec.action.size
        simnorm = config.simnorm_size
        self.encoder = make_encoder(spec, config)
        self.dynamics = MLP(pair_size, hidden, latent, simnorm_size=simnorm)
        self.reward = MLP(pair_size, hidden, config.num_bins, zero_last=True)
        self.termination = MLP(self.layout.input_size, hidden, 1) if config.episodic else None
        self.q = self._make_q(pair_size)
        self.target_q = self._make_q(pair_size).requires_grad_(False)
        self.target_q.load_state_dict(self.q.state_dict())
        self.target_q.eval()
        self.tasks = make_task_table(spec, config)
        # To walk over them takes longer than to look at each.
        self._parts = tuple(self.modules())

    def _make_q(self, in_features: int) -> EnsembleMLP:
        dims, config = self.config.dims, self.config
        return EnsembleMLP(
            dims["num_q"],
            in_features,
            [dims["mlp_dim"]] * 2,
            config.num_bins,
            dropout=config.dropout,
            init=config.q_init,
        )

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the world-model loss trains, by the names that users select."""
        modules: dict[str, nn.Module] = {
            "encoder": self.encoder,
            "dynamics": self.dynamics,
            "reward": self.reward,
            "q": self.q,
        }
        if self.termination is not None:
            modules["termination"] = self.termination
        if self.tasks is not None:
            modules["tasks"] = self.tasks
        return modules

    def train(self, mode: bool = True) -> "WorldModel":
        """Set the mode; target Q-functions stay in evaluation mode (no dropout)."""
        for module in self._parts:
            module.__dict__["training"] = mode  # nn.Module's own way takes ten times as long
        self.target_q.eval()
        return self

    @property
    def is_hooked(self) -> bool:
        """Whether anybody wants to be told what a module returns."""
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in self._parts)
        return hooked or bool(_global_forward_hooks)

    def encode(self, obs: Observation) -> Tensor:
        """Latents ``[..., D]`` of observations: vectors, joined as in the spec, or one image."""
        entries = [obs[name] for name in self.obs_names]
        if self.tasks is not None:
            task = self.tasks(obs[TASK])
            seen = torch.cat([*entries, task[..., : self.layout.embedding]], -1)
            return torch.cat([self.encoder(seen), task], -1)
        return self.encoder(entries[0] if len(entries) == 1 else torch.cat(entries, -1))

    @torch.no_grad()
    def with_current_tasks(self, latent: Tensor, obs: Observation) -> Tensor:
        """Latents ``[B, T, L]`` with what the tasks of ``obs`` ``[B, T', ...]`` are now."""
        if self.tasks is None:
            return latent
        task = self.tasks(obs[TASK][:, :1]).expand(-1, latent.shape[1], -1)
        return torch.cat([self.layout.state(latent), task], -1)

    def pair(self, latent: Tensor, action: Tensor) -> Tensor:
        """What networks of latents ``[..., D]`` and actions ``[..., A]`` read."""
        return torch.cat([self.layout.network_input(latent), action], -1)

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        """Latents ``[..., D]`` after actions ``[..., A]``; what they say of their task stays."""
        return self.layout.with_task_of(latent, self.dynamics(self.pair(latent, action)))

    def draw_heads(self, device: torch.device) -> Tensor:
        """Indices ``[2]`` of two distinct Q-functions, from torch's global stream."""
        return torch.randperm(self.config.dims["num_q"], device=device)[:2]

    def q_values(
        self, latent: Tensor, action: Tensor, heads: Tensor | None, *, target: bool = False
    ) -> Tensor:
        """Decoded values ``[M, ...]`` of latents ``[..., D]`` and actions ``[..., A]``."""
        network, pair = self.target_q if target else self.q, self.pair(latent, action)
        constant = 0 if latent.requires_grad else pair.shape[-1] - action.shape[-1]
        return self.two_hot.decode(network(pair, heads, constant=constant))

    @torch.no_grad()
    def targets(self, batch: Batch, policy: Policy) -> Targets:
        r"""Compute what the loss regresses on, at the current weights.

        .. math::
            y_t = r_t + \gamma (1 - terminated_t) \min_{i \in \{i_1, i_2\}}
                  \bar Q_i(z'_{t+1}, \pi(z'_{t+1})), \qquad z'_{t+1} = h(o_{t+1})

        Args:
            batch: Subsequences of H transitions.
            policy: Gives one sampled action for each next latent.

        Returns:
            ``next_latent`` ``[B, H, D]``, and where rewards and TD targets lie between the bins,
            each ``[B, H]``: the lower bins ``r_lower`` and ``q_lower`` int64, the shares of the
            bins above them ``r_share`` and ``q_share`` in the rewards' type.
        """
        next_latent = self.encode({name: value[:, 1:] for name, value in batch.obs.items()})
        heads = self.draw_heads(next_latent.device)
        if fused_policy.usable(self, policy, next_latent):
            value = FusedPolicy(self, policy, next_latent, heads, target=True).value
        else:
            next_action = policy(next_latent).action
            value = self.q_values(next_latent, next_action, heads, target=True).amin(0)
        cont = 1.0 - batch.terminated if self.config.mask_terminated else 1.0
        discount = self.layout.discount(next_latent, self.discount)
        q_lower, q_share = self.two_hot.position(batch.reward + discount * cont * value)
        r_lower, r_share = self.two_hot.position(batch.reward)
        return Targets(
            next_latent=self.layout.state(next_latent),
            q_lower=q_lower,
            q_share=q_share,
            r_lower=r_lower,
            r_share=r_share,
        )

    def unroll(self, latent: Tensor, action: Tensor) -> Tensor:
        """Unroll the dynamics: ``[B, D]`` and ``[B, H, A]`` to ``z_0..z_H`` ``[B, H + 1, D]``."""
        latents = [latent]
        for step in action.unbind(1):
            latents.append(self.step(latents[-1], step))
        return torch.stack(latents, 1)

    def unroll_batch(self, batch: Batch) -> Tensor:
        """Unroll the dynamics from a batch's first observations: ``z_0..z_H`` ``[B, H + 1, D]``."""
        first = self.encode({name: value[:, 0] for name, value in batch.obs.items()})
        return self.unroll(first, batch.action)

    def _logits(
        self, pair: Tensor, latents: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        logits = {"reward": self.reward(pair), "value": self.q(pair, mask=mask)}
        if self.termination is not None:
            logits["termination"] = self.termination(self.layout.network_input(latents[:, 1:]))[
                ..., 0
            ]
        return logits

    def step_weights(self, like: Tensor) -> Tensor:
        """What each of H steps counts for, ``decay^t / H``, for ``like`` ``[B, H]``."""
        horizon = like.shape[1]
        steps = torch.arange(horizon, device=like.device, dtype=like.dtype)
        return self.config.temporal_decay**steps / horizon

    def cross_entropies(
        self, logits: Mapping[str, Tensor], batch: Batch, targets: Targets
    ) -> dict[str, Tensor]:
        """The categorical parts of the loss, each a scalar, by the names of their logits.

        Args:
            logits: ``reward`` ``[B, H, bins]``, ``value`` ``[K, B, H, bins]`` and, where the model
                has that head, ``termination`` ``[B, H]``.
            batch: Subsequences of H transitions.
            targets: What ``targets`` returned for this batch.

        Returns:
            Means over the batch, those of reward and value with ``w_t`` over time.
        """
        weight = self.step_weights(logits["reward"])
        reward = self.two_hot.cross_entropy(
            logits["reward"], (targets["r_lower"], targets["r_share"])
        )
        value = self.two_hot.cross_entropy(
            logits["value"], (targets["q_lower"], targets["q_share"])
        )
        parts = {
            "reward": (reward.mean(0) * weight).sum(),
            "value": (value.mean((0, 1)) * weight).sum(),
        }
        if "termination" in logits:
            parts["termination"] = F.binary_cross_entropy_with_logits(
                logits["termination"], batch.terminated
            )
        return parts

    def _cross_entropy_coefs(self) -> dict[str, float]:
        config = self.config
        coefs = {"reward": config.reward_coef, "value": config.value_coef}
        return coefs | (
            {} if self.termination is None else {"termination": config.termination_coef}
        )

    def categorical_loss(self, batch: Batch, targets: Targets) -> CategoricalLoss:
        """The cross entropies in ``loss``, with its coefficients, apart from their logits."""
        coefs = self._cross_entropy_coefs()

        def loss(logits: Mapping[str, Tensor]) -> Tensor:
            parts = self.cross_entropies(logits, batch, targets)
            return torch.stack([coefs[name] * part for name, part in parts.items()]).sum()

        def outputs() -> dict[str, Tensor]:
            latents = self.unroll_batch(batch)
            return self._logits(self.pair(latents[:, :-1], batch.action), latents)

        return CategoricalLoss(outputs, loss)

    def loss(self, batch: Batch, targets: Targets) -> LossOutput:
        r"""World-model loss (Eq. 3 with the official weights).

        With ``w_t = decay^t / H`` and means over the batch,

        .. math::
            L = \sum_t w_t \left[ c_1 |z_{t+1} - z'_{t+1}|^2 / D + c_2 CE(R_t, r_t)
                + c_3 \frac{1}{K} \sum_i CE(Q_{i,t}, y_t) \right] + c_4 BCE(T(z_{1..H}))

        Args:
            batch: Subsequences of H transitions.
            targets: What ``targets`` returned for this batch.

        Returns:
            Loss, its parts and the rollout.
        """
        if fused_loss.usable(self, batch):
            return LossOutput(*fused_loss.evaluate(self, batch, targets))
        return self.loss_in_torch(batch, targets)

    def loss_in_torch(
        self, batch: Batch, targets: Targets, mask: Tensor | None = None
    ) -> LossOutput:
        """The same by torch; ``mask`` ``[K, B H, mlp_dim]`` replaces dropout of the Q-functions."""
        config, latents = self.config, self.unroll_batch(batch)
        pair = self.pair(latents[:, :-1], batch.action)
        error = (self.layout.state(latents[:, 1:]) - targets["next_latent"]).square().mean(-1)
        parts = {"consistency": (error.mean(0) * self.step_weights(error)).sum()}
        parts |= self.cross_entropies(self._logits(pair, latents, mask), batch, targets)
        loss = config.consistency_coef * parts["consistency"]
        for name, coef in self._cross_entropy_coefs().items():
            loss = loss + coef * parts[name]
        return LossOutput(loss, loss_metrics(loss, parts), latents.detach())

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target Q-functions ``tau`` of the way towards the trained ones."""
        torch._foreach_lerp_(
            list(self.target_q.parameters()), list(self.q.parameters()), self.config.target_rate
        )
