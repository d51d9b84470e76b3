"""What TD-MPC2 maximises when it plans: model return plus the value of where it leads.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Section 3.3, Eq. 7.
"""

import torch
from torch import Tensor

from agents.tdmpc2.policy import Policy
from agents.tdmpc2.world_model import WorldModel
from mbrl_flat.planning.mppi import MPPIConfig, Plan, draw_noise, mppi


class LatentPlanner:
    """MPPI in the latent space of a world model, with policy-prior sequences among its samples.

    Args:
        model: The world model, in evaluation mode when called.
        policy: The policy prior.
        config: MPPI hyperparameters.
    """

    def __init__(self, model: WorldModel, policy: Policy, config: MPPIConfig) -> None:
        self.model = model
        self.policy = policy
        self.config = config

    def __call__(
        self, latent: Tensor, previous_mean: Tensor, generator: torch.Generator, *, explore: bool
    ) -> Plan:
        """Plan from latents ``[N, D]`` with the means ``[N, H, A]`` of the step before."""
        config, num, size = self.config, latent.shape[0], self.policy.space.size
        device = generator.device
        noise = draw_noise(config, num, size, generator)
        prior_noise = torch.randn(
            num, config.num_prior, config.horizon, size, generator=generator, device=device
        )
        last_noise = torch.randn(
            config.iterations, num, config.num_samples, size, generator=generator, device=device
        )
        num_q = self.model.config.dims["num_q"]
        heads = [
            torch.randperm(num_q, generator=generator, device=device)[:2]
            for _ in range(config.iterations)
        ]
        prior = self._prior_sequences(latent, prior_noise)

        def objective(actions: Tensor, iteration: int) -> Tensor:
            return self.estimate_return(latent, actions, last_noise[iteration], heads[iteration])

        return mppi(objective, prior, previous_mean, noise, config, explore=explore)

    def _prior_sequences(self, latent: Tensor, noise: Tensor) -> Tensor:
        """Roll the policy out in the model: noise ``[N, P, H, A]`` to actions of that shape."""
        if noise.shape[1] == 0:
            return noise
        latent = latent[:, None].expand(-1, noise.shape[1], -1)
        actions = []
        for t in range(noise.shape[2]):
            actions.append(self.policy(latent, noise[:, :, t]).action)
            if t + 1 < noise.shape[2]:
                latent = self.model.dynamics(torch.cat([latent, actions[-1]], -1))
        return torch.stack(actions, 2)

    def estimate_return(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: Tensor
    ) -> Tensor:
        r"""Value action sequences by the model.

        .. math::
            \sum_{t<H} \gamma^t R(z_t, a_t) + \gamma^H \frac{1}{2}
            \sum_{i \in \{i_1, i_2\}} Q_i(z_H, \pi(z_H))

        With a termination head, what follows a predicted termination counts nothing.

        Args:
            latent: Where the plans start ``[N, D]``.
            actions: ``[N, S, H, A]``, raw.
            noise: Standard normal for the last action ``[N, S, A]``.
            heads: The two Q-functions ``[2]``.

        Returns:
            Values ``[N, S]``.
        """
        model, gamma = self.model, self.model.discount
        actions = self.policy.space.project(actions)
        alive: Tensor | float = 1.0
        value: Tensor | float = 0.0
        for t in range(actions.shape[2]):
            action = actions[:, :, t]
            if t == 0:
                # All samples of a state share its latent: its part of the first layer is one row.
                start = latent[:, None]
                reward_logits = model.reward.forward_pair(start, action)
                latent = model.dynamics.forward_pair(start, action)
            else:
                pair = torch.cat([latent, action], -1)
                reward_logits = model.reward(pair)
                latent = model.dynamics(pair)
            value = value + gamma**t * alive * model.two_hot.decode(reward_logits)
            if model.termination is not None:
                ended = (torch.sigmoid(model.termination(latent)[..., 0]) > 0.5).to(latent.dtype)
                alive = alive * (1.0 - ended)
        action = self.policy(latent, noise).action
        last = model.q_values(latent, action, heads).mean(0)
        return value + gamma ** actions.shape[2] * alive * last
