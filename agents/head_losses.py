"""Losses of the reward and continuation heads of a world model that imagines.

Reward and continuation are categorical in DreamerV3, STORM and TWISTER alike: the cross entropy
of a two-hot reward, and that of continuing. Both count once in each paper's loss.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mbrl_flat.agents.actor_critic import Bins
from mbrl_flat.agents.imagination import Heads, ImaginationModel
from mbrl_flat.data.batch import Batch
from mbrl_flat.interfaces import CategoricalLoss, ProbeLoss, Targets
from mbrl_flat.models.functional import full_precision
from mbrl_flat.runtime.seeding import restored_rng


def head_logits(features: Tensor, reward: nn.Module, continuation: nn.Module) -> Heads:
    """What two heads say to features ``[..., F]``, in full precision."""
    return {
        "reward": full_precision(reward(features)),
        "continue": full_precision(continuation(features))[..., 0],
    }


def head_losses(logits: Heads, bins: Bins, continues: Tensor, targets: Targets) -> Heads:
    """Cross entropies of both heads, each a mean over batch and time.

    Args:
        logits: ``reward`` ``[B, T, bins]`` and ``continue`` ``[B, T]``.
        bins: What the reward's logits stand for.
        continues: Probability that the episode continues ``[B, T]``.
        targets: ``r_lower`` and ``r_share`` ``[B, T]``: where rewards lie between the bins.

    Returns:
        ``reward`` and ``continue``.
    """
    position = (targets["r_lower"], targets["r_share"])
    return {
        "reward": bins.cross_entropy(logits["reward"], position).mean(),
        "continue": F.binary_cross_entropy_with_logits(logits["continue"], continues),
    }


def probe_loss(model: ImaginationModel, batch: Batch) -> ProbeLoss:
    """The loss of ``model`` on ``batch`` as a function of the weights; no random stream moves."""
    with restored_rng():
        targets = model.targets(batch)

    def heads(logits: Heads) -> Tensor:
        return torch.stack([*model.head_losses(logits, batch, targets).values()]).sum()

    return ProbeLoss(
        loss=lambda: model.loss(batch, targets).loss,
        modules={k: list(m.parameters()) for k, m in model.trained_modules().items()},
        categorical=CategoricalLoss(lambda: model.head_logits(batch, targets), heads),
    )
