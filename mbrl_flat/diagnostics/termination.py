r"""How well a world model predicts termination, k steps ahead and open loop.

Subsequences lie within one episode, so only their last transition can end the task. The model
predicts that transition from k steps before it with the recorded actions: the same events for
every k. (Lost lives that are recorded as terminations lie anywhere in a subsequence. The target is
still the last transition; a model that learned from such records continues past the others.)
Terminations are rare, so both kinds of subsequences are drawn and weighted by how often each
occurs, with the share ``p`` of subsequences that end:

.. math::
    \mathrm{Brier}_k = p\, E[(1 - \hat e_k)^2 \mid \text{ends}]
        + (1 - p)\, E[\hat e_k^2 \mid \text{continues}], \qquad
    \mathrm{AUC}_k = P(\hat e_k^{ends} > \hat e_k^{cont}) + P(\hat e_k^{ends} = \hat e_k^{cont}) / 2

Always saying ``p`` has a Brier score of ``p (1 - p)`` and an AUC of one half.

References:
    Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review
    78(1), 1950; Hanley & McNeil, "The Meaning and Use of the Area under a Receiver Operating
    Characteristic (ROC) Curve", Radiology 143(1), 1982.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbrl_flat.analysis.stats import probability_of_improvement
from mbrl_flat.data.batch import Batch
from mbrl_flat.data.replay import Replay
from mbrl_flat.interfaces import Inspectable

_CANDIDATES = 32
"""Candidate subsequences for each that is kept; a candidate costs one number of the replay."""


class Endings(NamedTuple):
    """Subsequences of both kinds."""

    batch: Batch
    """``[B, K]``; ``terminated[:, -1]`` says which kind."""
    rate: float
    """Share of the stored subsequences of K transitions that end the task."""


def draw_endings(
    replay: Replay, num: int, length: int, *, rng: np.random.Generator, heldout: bool
) -> Endings | None:
    """Draw up to ``num / 2`` subsequences that end with a termination, and as many that do not.

    Args:
        replay: Where they come from; some subsequence of this length must be there.
        num: Most subsequences that are drawn; fewer if fewer episodes end.
        length: Transitions K of each, the last of which ends the episode or not.
        rng: Source of the draw.
        heldout: Whether from held-out episodes.

    Returns:
        The subsequences, or None if only one kind was found.
    """
    drawn = replay.starts(_CANDIDATES * num, length, rng=rng, heldout=heldout)
    starts = rng.permutation(np.unique(drawn, axis=0))
    last = (starts[:, 1] + length - 1) % replay.slots_per_env
    ends = replay.arrays["terminated"][starts[:, 0], last].astype(np.bool_)
    if ends.all() or not ends.any():
        return None
    half = num // 2
    chosen = np.concatenate([starts[ends][:half], starts[~ends][:half]])
    return Endings(replay.gather(chosen, length), float(ends.mean()))


@torch.no_grad()
def predicted(agent: Inspectable, batch: Batch) -> Tensor:
    """Predict whether subsequences ``[B, K]`` end the task with their last transition.

    Args:
        agent: The trained agent whose world model predicts; it is not changed.
        batch: Recorded subsequences ``[B, T, ...]``.

    Returns:
        Probabilities ``[K, B]``, in row k - 1 those from k steps before the end.
    """
    latents = agent.posterior(batch)
    actions = batch.action.to(latents.device)
    length, found = actions.shape[1], []
    for start in reversed(range(length)):
        latent, cont = latents[:, start], latents.new_ones(len(latents))
        for action in actions[:, start:].unbind(1):
            latent, _, cont = agent.predict(latent, action)
        found.append((1.0 - cont).clamp(0.0, 1.0))
    return torch.stack(found)


def termination_scores(probability: Tensor, ended: Tensor, *, rate: float) -> dict[str, float]:
    """Score predictions against what happened.

    Args:
        probability: ``[K, B]``, as ``predicted`` gives them.
        ended: 1 where the task ended, ``[B]``; both kinds have to be there.
        rate: Share of ends among all that might have been drawn.

    Returns:
        ``termination_brier_<k>`` and ``termination_auc_<k>`` for k = 1..K; of the base rate
        ``termination_rate`` and ``termination_brier_base``; and how many ended,
        ``termination_count``.
    """
    said = probability.double().cpu().numpy()
    happened = ended.cpu().numpy() > 0.5
    row = {
        "termination_rate": rate,
        "termination_brier_base": rate * (1.0 - rate),
        "termination_count": float(happened.sum()),
    }
    for k, (yes, no) in enumerate(zip(said[:, happened], said[:, ~happened], strict=True), 1):
        missed, alarmed = np.square(1.0 - yes).mean(), np.square(no).mean()
        row[f"termination_brier_{k}"] = float(rate * missed + (1.0 - rate) * alarmed)
        row[f"termination_auc_{k}"] = probability_of_improvement(yes, no)
    return row
