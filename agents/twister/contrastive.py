r"""Action-conditioned contrastive predictive coding: tell the future that came from all others.

For each horizon k = 0..K-1 a query, made of the model's state at t and the k actions after it, is
compared with keys, made of augmented views of all images of the batch:

.. math::
    L_k = -E \log \frac{\exp(q_k(s_t, a_{t:t+k})^T k_k(\tilde z_{t+k}))}
                       {\sum_{b, u} \exp(q_k(s_t, a_{t:t+k})^T k_k(\tilde z_u^b))},
    \qquad L = \sum_k \frac{w^k}{\sum_j w^j} L_k

References:
    Burchi & Timofte, "Learning Transformer-based World Models with Contrastive Predictive
    Coding", ICLR 2025, arXiv:2503.04416, Section 3.3; van den Oord et al., arXiv:1807.03748.

Deviations from the paper:
    A pair whose future lies in another episode is no positive; its key is still a negative.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


def info_nce(query: Tensor, key: Tensor) -> Tensor:
    """Cross-entropy of finding key i for query i among all keys, by plain dot products.

    Args:
        query: Predicted features, ``[M, D]``.
        key: Features of the futures; row i belongs to query i, the others are negatives, ``[M,
            D]``.

    Returns:
        ``-log softmax(query key^T)_ii``, ``[M]``, in float32.
    """
    scores = (query @ key.T).float()
    return scores.logsumexp(1) - scores.diagonal()


def horizon_weights(num: int, decay: float) -> list[float]:
    """Weights ``decay^k``, normalised to sum one."""
    raw = [decay**k for k in range(num)]
    return [weight / sum(raw) for weight in raw]


def _network(in_features: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise([in_features, hidden, hidden]):
        layers += [nn.Linear(n_in, n_out), nn.ELU()]
    return nn.Sequential(*layers)


class ContrastivePredictor(nn.Module):
    """Queries and keys for every horizon.

    Args:
        feature_size: Size F of a state.
        latent_size: Size L of a latent.
        action_size: Size A of an action.
        hidden: Features of both layers of each network.
        steps: Number of steps K ahead, each with a predictor of its own.
        decay: Base w of the weights.
    """

    def __init__(
        self,
        feature_size: int,
        latent_size: int,
        action_size: int,
        *,
        hidden: int,
        steps: int,
        decay: float,
    ) -> None:
        super().__init__()
        self.weights = horizon_weights(steps, decay)
        self.queries = nn.ModuleList(
            [_network(feature_size + k * action_size, hidden) for k in range(steps)]
        )
        self.keys = nn.ModuleList([_network(latent_size, hidden) for _ in range(steps)])

    def forward(
        self, features: Tensor, view_latent: Tensor, action: Tensor, episode: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss; horizons longer than the sequence count for nothing.

        Args:
            features: Predicted states ``[B, T, F]``.
            view_latent: Latents of the augmented views of the same steps ``[B, T, L]``.
            action: ``action[:, t]`` is taken at step t, ``[B, T - 1, A]``.
            episode: Number of the episode of each step, ``[B, T]``.

        Returns:
            The weighted loss, a scalar, and the losses of the horizons ``[min(K, T)]``.
        """
        length = features.shape[1]
        losses: list[Tensor] = []
        for k, make_query, make_key in zip(range(length), self.queries, self.keys, strict=False):
            num = length - k
            taken = [action[:, step : step + num] for step in range(k)]
            query = make_query(torch.cat([features[:, :num], *taken], -1))
            key = make_key(view_latent[:, k:])
            each = info_nce(query.flatten(0, 1), key.flatten(0, 1))
            same = (episode[:, :num] == episode[:, k:]).flatten().to(each.dtype)
            losses.append((each * same).sum() / same.sum().clamp(min=1.0))
        parts = torch.stack(losses)
        return parts @ parts.new_tensor(self.weights[: len(losses)]), parts
