"""The world model of TD-MPC2 learned from recorded transitions, without policy or planner.

Encoder, dynamics, reward and Q-functions and their loss are the agent's own. The Q-functions
regress on the returns that were recorded, that is they value the policy that played the episodes:
a fixed target, so that a loss on held-out episodes can be measured as well.

References:
    Hansen et al., "TD-MPC2", ICLR 2024, arXiv:2310.16828, Eq. 3.

Deviations from the paper:
    Recorded returns in place of bootstrapped ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mbrl_flat.agents.tdmpc2.config import TDMPC2Config
from mbrl_flat.agents.tdmpc2.world_model import WorldModel
from mbrl_flat.diagnostics.rollout_error import Readout, fit_readout
from mbrl_flat.interfaces import Targets
from mbrl_flat.specs import EnvSpec
from mbrl_flat.studies.offline.offline_model import Predictions
from mbrl_flat.studies.offline.transitions import Subsequences


class OfflineTDMPC2(nn.Module):
    """A ``OfflineModel`` of ``mbrl_flat.studies.offline``.

    Args:
        spec: The environment's shapes: vectors.
        size: Label of the network size, see ``mbrl_flat.agents.tdmpc2.config.SIZES``.
        horizon: Length of the rollouts that the loss judges.
        batch_size: Subsequences of a batch.
        dropout: Dropout of the first hidden layer of each Q-function.
    """

    context = 1
    """Recorded observations that a prediction starts from."""
    readout: Readout
    """Observations from latents; fitted by ``calibrate``."""

    def __init__(
        self,
        spec: EnvSpec,
        *,
        size: str = "cpu",
        horizon: int = 3,
        batch_size: int = 128,
        dropout: float = 0.01,
    ) -> None:
        super().__init__()
        config = TDMPC2Config(
            size=str(size),
            horizon=horizon,
            batch_size=batch_size,
            dropout=dropout,
            q_init="truncated_normal",  # what docs/studies/world_model_offline was measured with
        )
        self.model = WorldModel(spec, config)
        self.sequence_length, self.batch_size = config.horizon, config.batch_size
        self.lr_scales: Mapping[str, float] = {"encoder": config.enc_lr_scale}
        self.max_grad_norm = config.grad_clip

    def trained_modules(self) -> dict[str, nn.Module]:
        """The modules that the loss trains, by name."""
        return self.model.trained_modules()

    @torch.no_grad()
    def targets(self, subsequences: Subsequences) -> Targets:
        """Next latents at the current weights; rewards and returns between the bins."""
        r_lower, r_share = self.model.two_hot.position(subsequences.batch.reward)
        q_lower, q_share = self.model.two_hot.position(subsequences.returns)
        return Targets(
            next_latent=self.model.encode({"state": subsequences.obs[:, 1:]}),
            r_lower=r_lower,
            r_share=r_share,
            q_lower=q_lower,
            q_share=q_share,
        )

    def loss(self, subsequences: Subsequences, targets: Targets) -> Tensor:
        """The world-model loss, a scalar."""
        return self.model.loss(subsequences.batch, targets).loss

    @torch.no_grad()
    def calibrate(self, subsequences: Subsequences) -> None:
        """Regress observations on their latents, linearly."""
        latent = self.model.encode(subsequences.batch.obs)
        self.readout = fit_readout(latent.flatten(0, 1), subsequences.obs.flatten(0, 1))

    def encode(self, obs: Tensor) -> Tensor:
        """Latents ``[N, D]`` of standardised observations ``[N, n]``."""
        return self.model.encode({"state": obs})

    @torch.no_grad()
    def imagined_return(self, latent: Tensor, actions: Tensor, discount: float) -> Tensor:
        """Discounted rewards of H actions, then the mean Q-function of the last one.

        Args:
            latent: Where the plans start ``[N, D]``.
            actions: ``[N, S, H + 1, A]``.
            discount: Of rewards and of the value.

        Returns:
            Values ``[N, S]``.
        """
        latents = [latent[:, None].expand(-1, actions.shape[1], -1)]
        for action in actions[:, :, :-1].unbind(2):
            latents.append(self.model.step(latents[-1], action))
        pairs = self.model.pair(torch.stack(latents, 2)[:, :, :-1], actions[:, :, :-1])
        weights = discount ** torch.arange(actions.shape[2] - 1)
        reward = (weights * self.model.two_hot.decode(self.model.reward(pairs))).sum(2)
        value = self.model.q_values(latents[-1], actions[:, :, -1], None).mean(0)
        return reward + discount ** len(weights) * value

    @torch.no_grad()
    def predict(self, subsequences: Subsequences, horizon: int) -> Predictions:
        """Unroll the dynamics from the first observation's latent; see ``OfflineModel``."""
        action = subsequences.batch.action[:, : horizon + 1]
        first = self.model.encode({"state": subsequences.obs[:, 0]})
        latent = self.model.unroll(first, action[:, :horizon])
        reward_pair = torch.cat([latent[:, :-1], action[:, :horizon]], -1)
        return Predictions(
            obs=self.readout(latent),
            reward=self.model.two_hot.decode(self.model.reward(reward_pair)),
            value=self.model.q_values(latent, action, None).mean(0),
        )
