r"""A transformer that predicts the next observation of a vector task from all it has seen.

    x_t = embed(o_t, a_t),  h_t = f(x_{<= t}),  o_{t+1} = o_t + O(h_t),  r_t = R(h_t),  Q_t = V(h_t)

The loss is teacher-forced; open loop, its own observations take the place of the recorded ones.

References:
    Zhang et al., "STORM", arXiv:2310.09615, Section 3.1, and Burchi & Timofte, "TWISTER",
    arXiv:2503.04416, Section 3.1: tokens of observation and action, a causal transformer, heads on
    its outputs, two-hot reward.

Deviations from the papers:
    Vectors are predicted as they are, with a squared error, instead of categorical latents of
    images; and a value head learns returns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mbrl_flat.interfaces import Targets
from mbrl_flat.models.functional import TwoHot
from mbrl_flat.models.transformer import CausalTransformer, TransformerConfig, causal_mask
from mbrl_flat.settings import check_number
from mbrl_flat.specs import EnvSpec
from mbrl_flat.studies.offline.offline_model import Predictions
from mbrl_flat.studies.offline.transitions import Subsequences


class VectorTransformer(nn.Module):
    """Networks and loss.

    Args:
        spec: The environment's shapes: vectors.
        size: Features of a token.
        num_layers: Blocks.
        num_heads: Heads of attention.
        feedforward: Hidden features of a block.
        dropout: Of the transformer.
        left_context: How many tokens before itself each layer attends to.
        context: Recorded observations before an open-loop prediction.
        sequence_length: Transitions of a training subsequence.
        batch_size: Subsequences of a batch.
        reward_coef: Weight of the reward loss.
        value_coef: Weight of the value loss.
        num_bins: Bins of the two-hot heads.
        bin_limit: Bins span [-limit, limit] in symlog space.
    """

    lr_scales: Mapping[str, float] = {}
    max_grad_norm = 1000.0

    def __init__(
        self,
        spec: EnvSpec,
        *,
        size: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        feedforward: int = 128,
        dropout: float = 0.1,
        left_context: int = 8,
        context: int = 8,
        sequence_length: int = 16,
        batch_size: int = 16,
        reward_coef: float = 0.1,
        value_coef: float = 0.1,
        num_bins: int = 101,
        bin_limit: float = 10.0,
    ) -> None:
        super().__init__()
        check_number("context", context, "[1, inf)", whole=True)
        self.context, self.sequence_length = context, sequence_length
        self.batch_size = batch_size
        self.reward_coef, self.value_coef = reward_coef, value_coef
        self.two_hot = TwoHot(num_bins=num_bins, low=-bin_limit, high=bin_limit)
        num = sum(shape[0] for shape in spec.obs.values())
        self.embed = nn.Sequential(nn.Linear(num + spec.action.size, size), nn.LayerNorm(size))
        self.transformer = CausalTransformer(
            TransformerConfig(
                size=size,
                num_layers=num_layers,
                num_heads=num_heads,
                feedforward=feedforward,
                dropout=dropout,
                left_context=left_context,
            )
        )
        self.change, self.reward, self.value = (
            nn.Linear(size, width) for width in (num, num_bins, num_bins)
        )
        for head in (self.change, self.reward, self.value):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def trained_modules(self) -> dict[str, nn.Module]:
        """Trained modules by name."""
        return dict(self.named_children())

    def targets(self, subsequences: Subsequences) -> Targets:
        """Where rewards and returns lie between the bins, each ``[B, T]``."""
        r_lower, r_share = self.two_hot.position(subsequences.batch.reward)
        q_lower, q_share = self.two_hot.position(subsequences.returns)
        return Targets(r_lower=r_lower, r_share=r_share, q_lower=q_lower, q_share=q_share)

    def loss(self, subsequences: Subsequences, targets: Targets) -> Tensor:
        """``mean |o' - o|^2 / n + c_r CE(r) + c_v CE(G)`` over all steps of the subsequences."""
        obs = subsequences.obs
        hidden = self._outputs(obs[:, :-1], subsequences.batch.action)
        error = (obs[:, :-1] + self.change(hidden) - obs[:, 1:]).square().mean()
        reward = self.two_hot.cross_entropy(
            self.reward(hidden), (targets["r_lower"], targets["r_share"])
        )
        value = self.two_hot.cross_entropy(
            self.value(hidden), (targets["q_lower"], targets["q_share"])
        )
        return error + self.reward_coef * reward.mean() + self.value_coef * value.mean()

    def _outputs(self, obs: Tensor, action: Tensor) -> Tensor:
        """Outputs ``[B, T, D]`` for observations ``[B, T, n]`` and actions ``[B, T, A]``."""
        tokens = self.embed(torch.cat([obs, action], -1))
        begins = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        mask = causal_mask(begins, self.transformer.config.left_context)
        return self.transformer(tokens, mask)[0]

    def calibrate(self, subsequences: Subsequences) -> None:
        """Nothing: it predicts observations themselves."""

    @torch.no_grad()
    def predict(self, subsequences: Subsequences, horizon: int) -> Predictions:
        """Predict with the recorded actions; see ``OfflineModel``."""
        seen, action = subsequences.obs[:, : self.context], subsequences.batch.action
        obs, rewards, values = [seen[:, -1]], [], []
        for step in range(horizon + 1):
            hidden = self._outputs(seen, action[:, : seen.shape[1]])[:, -1]
            values.append(self.two_hot.decode(self.value(hidden)))
            if step < horizon:
                rewards.append(self.two_hot.decode(self.reward(hidden)))
                obs.append(obs[-1] + self.change(hidden))
                seen = torch.cat([seen, obs[-1][:, None]], 1)
        return Predictions(torch.stack(obs, 1), torch.stack(rewards, 1), torch.stack(values, 1))
