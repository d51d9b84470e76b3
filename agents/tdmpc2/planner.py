"""What TD-MPC2 maximises when it plans: model return plus the value of where it leads.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3.3, Eq. 7.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mbrl_flat.agents.tdmpc2 import fused_plan
from mbrl_flat.agents.tdmpc2.policy import Policy
from mbrl_flat.agents.tdmpc2.world_model import WorldModel
from mbrl_flat.planning.mppi import MPPIConfig, Noise, Plan, draw_noise, mppi
from mbrl_flat.runtime.compilation import Compiled


class PlanNoise(NamedTuple):
    """Every random draw of one call for N states; the states share the drawn Q-functions."""

    search: Noise
    """What MPPI draws."""
    prior: Tensor
    """Standard normal ``[N, P, H, A]`` of the policy-prior sequences."""
    final_action: Tensor
    """Standard normal ``[iterations, N, S, A]`` of the policy's action after each plan."""
    heads: Tensor
    """Two distinct Q-functions for each iteration, ``[iterations, 2]``."""


class PlanNetworks(nn.Module):
    """The networks that value plans."""

    def __init__(self, model: WorldModel, policy: Policy) -> None:
        super().__init__()
        self.dynamics, self.reward, self.q = model.dynamics, model.reward, model.q
        self.termination, self.policy = model.termination, policy


class Rollout(NamedTuple):
    """Action sequences followed to their end by the model."""

    latent: Tensor
    """Where they lead ``[N, S, D]``."""
    value: Tensor
    """Discounted rewards on the way ``[N, S]``."""
    alive: Tensor | None
    """Zero after a predicted termination, else one ``[N, S]``; None without that head."""

    def joined_with(self, other: "Rollout") -> "Rollout":
        """Put the sequences of another rollout after these."""
        alive = None
        if self.alive is not None and other.alive is not None:
            alive = torch.cat([self.alive, other.alive], 1)
        latent = torch.cat([self.latent, other.latent], 1)
        return Rollout(latent, torch.cat([self.value, other.value], 1), alive)


class LatentPlanner:
    """MPPI in the latent space of a world model, with policy-prior sequences among its samples.

    Args:
        model: The world model, in evaluation mode when called.
        policy: The policy prior.
        config: Horizon, samples, elites and temperature of MPPI.
        dtype: Precision of the networks that value plans. In ``bfloat16`` they are copied before
            each plan; returns are summed, and prior sequences rolled out, in full precision.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: Policy,
        config: MPPIConfig,
        *,
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.model = model
        self.policy = policy
        self.config = config
        self.networks = self._full = PlanNetworks(model, policy)
        if dtype == "bfloat16":
            self.networks = deepcopy(self._full).to(torch.bfloat16).eval().requires_grad_(False)
        self._value: Callable[..., Tensor] = self.estimate_return

    def compile(self, *, graphs: bool) -> None:
        """Compile the valuation of plans, once for each number of states that is met."""
        self._value = Compiled(self.estimate_return, "the planner", graphs=graphs)

    def __call__(
        self,
        latent: Tensor,
        previous_mean: Tensor,
        generator: torch.Generator | None,
        *,
        explore: bool,
    ) -> Plan:
        """Plan from latents ``[N, D]`` with the means ``[N, H, A]`` of the step before."""
        noise = self.draw(latent.shape[0], generator)
        return self.plan(latent, previous_mean, noise, explore=explore)

    def draw(self, num: int, generator: torch.Generator | None) -> PlanNoise:
        """Draw the noise of one call for ``num`` states; see ``draw_noise``."""
        config, size = self.config, self.policy.space.size
        device = None if generator is None else generator.device
        search = draw_noise(config, num, size, generator)
        prior = torch.randn(
            num, config.num_prior, config.horizon, size, generator=generator, device=device
        )
        final_action = torch.randn(
            config.iterations, num, config.num_samples, size, generator=generator, device=device
        )
        num_q = self.model.config.dims["num_q"]
        heads = [
            torch.randperm(num_q, generator=generator, device=device)[:2]
            for _ in range(config.iterations)
        ]
        return PlanNoise(search, prior, final_action, torch.stack(heads))

    def plan(
        self, latent: Tensor, previous_mean: Tensor, noise: PlanNoise, *, explore: bool
    ) -> Plan:
        """Plan from latents ``[N, D]`` with given noise, each as it would be planned alone.

        Args:
            latent: Where the plans start.
            previous_mean: Means of the step before ``[N, H, A]``.
            noise: The draws of this call.
            explore: Add noise to the action.

        Returns:
            Action ``[N, A]``, mean ``[N, H, A]`` and value ``[N]``.
        """
        search = self._own_actions(latent, noise.search)
        plain = self.networks is self._full and self._value == self.estimate_return
        if plain and fused_plan.usable(self, latent):
            fit = fused_plan.search(self, latent, previous_mean, noise)
            return fit.draw_plan(search, explore=explore)
        self._refresh()
        prior, num = self._prior_sequences(latent, noise.prior), self.config.num_prior
        # Prior sequences stay the same in all iterations: only their last value is new.
        rolled_out = self.roll_out(latent, prior) if num else None

        def objective(actions: Tensor, iteration: int) -> Tensor:
            drawn = noise.final_action[iteration], noise.heads[iteration]
            return self._value(latent, actions[:, num:], *drawn, rolled_out)

        return mppi(objective, prior, previous_mean, search, self.config, explore=explore)

    def _own_actions(self, latent: Tensor, noise: Noise) -> Noise:
        """Leave out noise on actions that a task does not have: their samples and means stay 0."""
        mask = self.model.layout.mask(latent)
        if mask is None:
            return noise
        samples, exploration = noise.samples * mask[:, None, None, None], noise.exploration * mask
        return noise._replace(samples=samples, exploration=exploration)

    @torch.no_grad()
    def _refresh(self) -> None:
        """Bring a copy up to date; the weights change between calls, also for an evaluation."""
        if self.networks is not self._full and not torch.compiler.is_exporting():
            torch._foreach_copy_(list(self.networks.parameters()), list(self._full.parameters()))

    def _prior_sequences(self, latent: Tensor, noise: Tensor) -> Tensor:
        """Roll the policy out in the model: noise ``[N, P, H, A]`` to actions of that shape."""
        if noise.shape[1] == 0:
            return noise
        latent = latent[:, None].expand(-1, noise.shape[1], -1)
        actions = []
        for t in range(noise.shape[2]):
            actions.append(self.policy(latent, noise[:, :, t]).action)
            if t + 1 < noise.shape[2]:
                latent = self.model.step(latent, actions[-1])
        return torch.stack(actions, 2)

    def estimate_return(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: Tensor,
        prior: Rollout | None = None,
    ) -> Tensor:
        r"""Value action sequences by the model.

        .. math::
            \sum_{t<H} \gamma^t R(z_t, a_t) + \gamma^H \frac{1}{2}
            \sum_{i \in \{i_1, i_2\}} Q_i(z_H, \pi(z_H))

        With a termination head, what follows a predicted termination counts nothing.

        Args:
            latent: Where the plans start ``[N, D]``.
            actions: ``[N, S - P, H, A]``, raw.
            noise: Standard normal for the last action ``[N, S, A]``.
            heads: The two Q-functions ``[2]``.
            prior: Rollout of P further sequences, which come first; by default P is 0.

        Returns:
            Values ``[N, S]``.
        """
        rollout = self.roll_out(latent, actions)
        if prior is not None:
            rollout = prior.joined_with(rollout)
        kind, precision = rollout.value.dtype, rollout.latent.dtype
        action = self.networks.policy(rollout.latent, noise.to(precision)).action
        last = self.networks.q(self.model.pair(rollout.latent, action), heads)
        last = self.model.two_hot.decode(last.to(kind)).mean(0)
        gamma = self.model.layout.discount(latent[:, None], self.model.discount)
        alive = 1.0 if rollout.alive is None else rollout.alive
        return rollout.value + gamma**self.config.horizon * alive * last

    def roll_out(self, latent: Tensor, actions: Tensor) -> Rollout:
        """Follow raw action sequences ``[N, S, H, A]`` from latents ``[N, D]``."""
        networks, layout, kind = self.networks, self.model.layout, latent.dtype
        precision = next(networks.parameters()).dtype
        decode = self.model.two_hot.decode
        actions = self.policy.space.project(actions)
        alive: Tensor | None = None
        value: Tensor | float = 0.0
        # All samples of a state share its latent: its part of the first layer is one row.
        latent = latent[:, None]
        gamma = layout.discount(latent, self.model.discount)
        latent = latent.to(precision)
        for t in range(actions.shape[2]):
            action = actions[:, :, t].to(precision)
            if t == 0:
                start = layout.network_input(latent)
                reward_logits = networks.reward.forward_pair(start, action)
                state = networks.dynamics.forward_pair(start, action)
            else:
                pair = self.model.pair(latent, action)
                reward_logits = networks.reward(pair)
                state = networks.dynamics(pair)
            latent = layout.with_task_of(latent, state)
            reward = gamma**t * decode(reward_logits.to(kind))
            value = value + (reward if alive is None else reward * alive)
            if networks.termination is not None:
                logits = networks.termination(layout.network_input(latent))[..., 0]
                going = (torch.sigmoid(logits) <= 0.5).to(kind)
                alive = going if alive is None else alive * going
        return Rollout(latent, torch.as_tensor(value), alive)
